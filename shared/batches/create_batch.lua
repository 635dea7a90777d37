-- Stores the record of a new batch, unless its API key has too many that are unfinished, its input has been deleted or has
-- expired, or an earlier request with the idempotency key has created one. Idempotent. Comes after created_once.lua and
-- readers.lua.
-- KEYS: the record, batches of the API key, all batches, unfinished batches, unfinished batches of the API key, the record
--       of the idempotency key, the record of the input file, reserved ids of files
-- ARGV: id, now (seconds, with milliseconds: the order of lists), maximum of unfinished batches of the key, seconds that a
--       record is kept after its batch can have ended, print, answer and lifetime (seconds) for the idempotency key, ids of
--       the two files with its results, until when these are reserved, then the fields of the record and their values by turns
-- Result: 1 if it is stored, 0 if the key has too many, 2 if the input is gone, or what find_creation returns
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
-- From here on the file does not expire until the batch has ended.
local expires_at = redis.call('HGET', KEYS[7], 'expires_at')
if not expires_at or (tonumber(expires_at) <= tonumber(ARGV[2]) and not is_read(KEYS[7], KEYS[4])) then
    return 2
end
redis.call('HSET', KEYS[7], 'batch', ARGV[1])
add_reader(KEYS[7], ARGV[1])
redis.call('ZADD', KEYS[8], ARGV[10], ARGV[8], ARGV[10], ARGV[9])
redis.call('HSET', KEYS[1], unpack(ARGV, 11))
redis.call('ZADD', KEYS[2], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[2], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[2], ARGV[1])
redis.call('SADD', KEYS[5], ARGV[1])
-- Records that have expired leave the lists.
local before = ARGV[2] - ARGV[4]
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', before)
redis.call('ZREMRANGEBYSCORE', KEYS[3], '-inf', before)
redis.call('EXPIRE', KEYS[2], ARGV[4])
keep_creation(KEYS[6], ARGV[5], ARGV[6], ARGV[7])
return 1
