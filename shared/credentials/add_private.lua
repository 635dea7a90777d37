-- Adds a private credential, unless the pool already has its refresh token or its quota of private credentials is full.
-- KEYS: fingerprints of the pool, credentials of the private pool, credential, private pools by last use
-- ARGV: credential id, fingerprint, now, name of the private pool, name prefix of all private pools of this pool,
--       maximum number of them, key prefix of credentials, then the credential's fields and values
-- Result: the pool that has the token, '' if the quota is full
local existing_id = redis.call('HGET', KEYS[1], ARGV[2])
if existing_id then
    return redis.call('HGET', ARGV[7] .. existing_id, 'pool')
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
