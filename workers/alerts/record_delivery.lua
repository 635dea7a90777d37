-- Stores how far a receiver has been told, if the process that has told it still may.
-- KEYS: the lease of the delivery, receivers
-- ARGV: the process, id of the receiver, its record
-- Result: 1 if it was stored
if redis.call('GET', KEYS[1]) ~= ARGV[1] or redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then
    return 0
end
redis.call('HSET', KEYS[2], ARGV[2], ARGV[3])
return 1
