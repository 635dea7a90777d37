-- Stores the record of a new batch, unless its API key has too many that are unfinished.
-- KEYS: the record, batches of the API key, all batches, unfinished batches, unfinished batches of the API key
-- ARGV: id, now (seconds, with milliseconds: the order of lists), maximum of unfinished batches of the key, seconds that a
--       record is kept after its batch can have ended, then the fields of the record and their values by turns
-- Result: 1 if it is stored
if redis.call('SCARD', KEYS[5]) >= tonumber(ARGV[3]) then
    return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 5))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
-- Records that have expired leave the lists.
local before = ARGV[2] - ARGV[4]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', before)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', before)
redis.call('EXPIRE', KEYS[2], ARGV[4])
return 1
