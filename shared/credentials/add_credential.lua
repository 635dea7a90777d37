-- Adds a credential unless its refresh token is known already.
-- KEYS: fingerprints of the pool, credentials of the pool, credential
-- ARGV: credential id, fingerprint, then the credential's fields and values
-- Result: '' when added, else the id of the credential that has the token
local known = redis.call('HGET', KEYS[1], ARGV[2])
if known then
    return known
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], unpack(ARGV, 3))
redis.call('HSET', KEYS[2], ARGV[1], 'active')
return ''
