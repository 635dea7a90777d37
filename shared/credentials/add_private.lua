-- Adds a private credential, unless its refresh token is known already or there are as many as may be.
-- KEYS: fingerprints of the pool, credentials of the private pool, credential, private pools by their last use
-- ARGV: credential id, fingerprint, now, the private pool's name, what the names of all of the pool begin with, most of
--       them, prefix of credentials, then the credential's fields and values
-- Result: the pool that the token is in, '' when there is no room
local known = redis.call('HGET', KEYS[1], ARGV[2])
if known then
    return redis.call('HGET', ARGV[7] .. known, 'pool')
end
local count = 0
for _, name in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do
    if name:sub(1, #ARGV[5]) == ARGV[5] then
        count = count + 1
    end
end
if count >= tonumber(ARGV[6]) then
    return ''
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], unpack(ARGV, 8))
redis.call('HSET', KEYS[2], ARGV[1], 'active')
redis.call('ZADD', KEYS[4], ARGV[3], ARGV[4])
return ARGV[4]
