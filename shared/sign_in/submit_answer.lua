-- Stores what the browser came back with, once, while the sign-in is pending.
-- KEYS: sign-in
-- ARGV: sealed answer, now
-- Result: 1 if it was stored, 0 if there is one already, or the sign-in is over
local fields = redis.call('HMGET', KEYS[1], 'state', 'expires_at')
if fields[1] ~= 'pending' or tonumber(fields[2]) < tonumber(ARGV[2]) then
    return 0
end
return redis.call('HSETNX', KEYS[1], 'answer', ARGV[1])
