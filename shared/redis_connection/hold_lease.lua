-- Takes or renews a lease for one holder; gives it back with a time of 0.
-- KEYS: lease
-- ARGV: the holder, time in ms, the dead holder that this one replaces ('' for none)
-- Result: 1 if it was given back or the holder has it now, 2 if it has just taken it, 0 if another one has it
local holder = redis.call('GET', KEYS[1])
if holder and holder ~= ARGV[1] and holder ~= ARGV[3] then
    return 0
end
if ARGV[2] == '0' then
    redis.call('DEL', KEYS[1])
    return 1
end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return holder == ARGV[1] and 1 or 2
