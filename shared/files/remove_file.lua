-- Removes the record of a file; its parts are deleted afterwards.
-- KEYS: the record, files of the API key, all files, files by expiry, bytes by API key
-- ARGV: id of the file, API key id
-- Result: 1 if it was there
local size = redis.call('HGET', KEYS[1], 'size')
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if not size then
    return 0
end
redis.call('DEL', KEYS[1])
if redis.call('HINCRBY', KEYS[5], ARGV[2], -size) <= 0 then
    redis.call('HDEL', KEYS[5], ARGV[2])
end
return 1
