-- Adds a credential unless the pool already has its refresh token.
-- KEYS: fingerprints of the pool, credentials of the pool, credential
-- ARGV: credential id, fingerprint, then the credential's fields and values
-- Result: '' if added, else the id of the credential that has the token
local existing_id = redis.call('HGET', KEYS[1], ARGV[2])
if existing_id then
    return existing_id
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], unpack(ARGV, 3))
redis.call('HSET', KEYS[2], ARGV[1], 'active')
return ''
