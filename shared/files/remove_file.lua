-- Removes the record of a file; its parts are deleted afterwards.
-- KEYS: the record, files of the API key, all files, files by expiry, bytes by API key, sums by purpose
-- ARGV: id of the file, API key id
-- Result: 1 if it was there
local size, purpose = unpack(redis.call('HMGET', KEYS[1], 'size', 'purpose'))
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if not size then
    return 0
end
redis.call('DEL', KEYS[1])

local function subtract(sums, field, count)
    if redis.call('HINCRBY', sums, field, -count) <= 0 then
        redis.call('HDEL', sums, field)
    end
end

subtract(KEYS[5], ARGV[2], size)
subtract(KEYS[6], (purpose or '') .. ':files', 1)
subtract(KEYS[6], (purpose or '') .. ':bytes', size)
return 1
