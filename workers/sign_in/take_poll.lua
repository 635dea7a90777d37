-- Takes or renews the lock of a device's polls, unless another process has it that may be alive.
-- KEYS: lock
-- ARGV: id of the process, id of the dead one that it replaces ('' for none), seconds for which it is taken
-- Result: 1 if the process has it
local owner = redis.call('GET', KEYS[1])
if owner and owner ~= ARGV[1] and owner ~= ARGV[2] then
    return 0
end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[3])
return 1
