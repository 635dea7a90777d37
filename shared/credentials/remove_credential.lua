-- Forgets a credential, its tokens and their fingerprints.
-- KEYS: credentials of the pool, credential, fingerprints of the pool, its history
-- ARGV: credential id
-- Result: 1 when it was there
local prints = redis.call('HMGET', KEYS[2], 'fingerprint', 'origin')
for _, print in ipairs(prints) do
    if print then
        redis.call('HDEL', KEYS[3], print)
    end
end
redis.call('DEL', KEYS[2], KEYS[4])
return redis.call('HDEL', KEYS[1], ARGV[1])
