-- Adds a credential in its state, unless the pool already has its refresh token or a credential of that id, whose token
-- may have rotated since.
-- KEYS: fingerprints of the pool, credentials of the pool, credential
-- ARGV: credential id, fingerprint, state, then the credential's fields and values
-- Result: '' if added, else the id of the credential that is there already
local existing_id = redis.call('HGET', KEYS[1], ARGV[2])
if existing_id then
    return existing_id
end
if redis.call('EXISTS', KEYS[3]) == 1 then
    return ARGV[1]
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], unpack(ARGV, 4))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return ''
