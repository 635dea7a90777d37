-- Stores the record of a file whose parts are durable, unless its API key would exceed a bound, or an earlier request with
-- the idempotency key has created a file. Idempotent. Comes after created_once.lua.
-- KEYS: the record, files of the API key, all files, files by expiry, bytes by API key, sums by purpose, reserved ids, the
--       record of the idempotency key
-- ARGV: id of the file, API key id, when it was created (ms), when it expires (s), bytes, maximum bytes and number of
--       files of the key (-1 for any), print, answer and lifetime (seconds) for the idempotency key, then the fields of the
--       record and their values by turns
-- Result: 0 if it is stored, 1 if the key would have too many bytes, 2 if too many files, 3 if it was stored before, or
--         what find_creation returns
if redis.call('EXISTS', KEYS[1]) == 1 then
    return 3
end
local before = find_creation(KEYS[8], ARGV[8])
if before then
    return before
end
local bytes, max_bytes, max_files = tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
if max_bytes >= 0 and tonumber(redis.call('HGET', KEYS[5], ARGV[2]) or 0) + bytes > max_bytes then
    return 1
end
if max_files >= 0 and redis.call('ZCARD', KEYS[2]) >= max_files then
    return 2
end
for i = 11, #ARGV, 2 do
    redis.call('HSET', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('ZADD', KEYS[2], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[3], ARGV[3], ARGV[1])
redis.call('ZADD', KEYS[4], ARGV[4], ARGV[1])
redis.call('HINCRBY', KEYS[5], ARGV[2], bytes)
redis.call('HINCRBY', KEYS[6], redis.call('HGET', KEYS[1], 'purpose') .. ':files', 1)
redis.call('HINCRBY', KEYS[6], redis.call('HGET', KEYS[1], 'purpose') .. ':bytes', bytes)
redis.call('ZREM', KEYS[7], ARGV[1])
keep_creation(KEYS[8], ARGV[8], ARGV[9], ARGV[10])
return 0
