-- Stores the record of a new batch, unless its API key has too many that are unfinished, or an earlier request with the
-- idempotency key has created one. Idempotent. Comes after created_once.lua.
-- KEYS: the record, batches of the API key, all batches, unfinished batches, unfinished batches of the API key, the record
--       of the idempotency key, the record of the input file
-- ARGV: id, now (seconds, with milliseconds: the order of lists), maximum of unfinished batches of the key, seconds that a
--       record is kept after its batch can have ended, print, answer and lifetime (seconds) for the idempotency key, then the
--       fields of the record and their values by turns
-- Result: 1 if it is stored, 0 if the key has too many, or what find_creation returns
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 1
end
local created = find_creation(KEYS[6], ARGV[5])
if created then
    return created
end
if redis.call('SCARD', KEYS[5]) >= tonumber(ARGV[3]) then
    return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 8))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
-- Records that have expired leave the lists.
local before = ARGV[2] - ARGV[4]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', before)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', before)
redis.call('EXPIRE', KEYS[2], ARGV[4])
if redis.call('EXISTS', KEYS[7]) == 1 then
    redis.call('HSET', KEYS[7], 'batch', ARGV[1])
end
keep_creation(KEYS[6], ARGV[5], ARGV[6], ARGV[7])
return 1
