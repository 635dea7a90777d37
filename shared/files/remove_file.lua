-- Removes the record of a file; its parts are deleted afterwards. Comes after readers.lua.
-- KEYS: the record, files of the API key, all files, files by expiry, bytes by API key, sums by purpose, unfinished batches
-- ARGV: id of the file, API key id, whether it stays while an unfinished batch reads it (1)
-- Result: 1 if it was there, 0 if not, 2 if it stays
if ARGV[3] == '1' and is_read(KEYS[1], KEYS[7]) then
    return 2
end
local size, purpose = unpack(redis.call('HMGET', KEYS[1], 'size', 'purpose'))
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('ZREM', KEYS[3], ARGV[1])
redis.call('ZREM', KEYS[4], ARGV[1])
if not size then
    return 0
end
redis.call('DEL', KEYS[1])

-- The sums of a key are there as long as it has files, empty ones too: the files of revoked keys are found by them.
redis.call('HINCRBY', KEYS[5], ARGV[2], 0 - size)
if redis.call('ZCARD', KEYS[2]) == 0 then
    redis.call('HDEL', KEYS[5], ARGV[2])
end

local function subtract(field, count)
    if redis.call('HINCRBY', KEYS[6], field, 0 - count) <= 0 then
        redis.call('HDEL', KEYS[6], field)
    end
end

subtract((purpose or '') .. ':files', 1)
subtract((purpose or '') .. ':bytes', size)
return 1
