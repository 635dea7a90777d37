-- Deletes a credential, its tokens, fingerprints and history.
-- KEYS: credentials of the pool, credential, fingerprints of the pool, history
-- ARGV: credential id
-- Result: 1 if it existed
local fingerprints = redis.call('HMGET', KEYS[2], 'fingerprint', 'origin')
for _, fingerprint in ipairs(fingerprints) do
    if fingerprint then
        redis.call('HDEL', KEYS[3], fingerprint)
    end
end
redis.call('DEL', KEYS[2], KEYS[4])
return redis.call('HDEL', KEYS[1], ARGV[1])
