-- Deletes a credential, its tokens, fingerprints, account, history and limits of its own.
-- KEYS: credentials of the pool, credential, fingerprints of the pool, history, accounts of the pool,
--       hash of the credentials' own limits, further keys to delete
-- ARGV: credential id
-- Result: 1 if it existed
local fingerprints = redis.call('HMGET', KEYS[2], 'fingerprint', 'origin')
for _, fingerprint in ipairs(fingerprints) do
    if fingerprint then
        redis.call('HDEL', KEYS[3], fingerprint)
    end
end
local known = redis.call('HMGET', KEYS[2], 'aliases', 'identity')
for alias in string.gmatch(known[1] or '', '%S+') do
    redis.call('HDEL', KEYS[3], alias)
end
if known[2] and redis.call('HGET', KEYS[5], known[2]) == ARGV[1] then
    redis.call('HDEL', KEYS[5], known[2])
end
redis.call('HDEL', KEYS[6], ARGV[1])
redis.call('DEL', KEYS[2], KEYS[4], unpack(KEYS, 7))
return redis.call('HDEL', KEYS[1], ARGV[1])
