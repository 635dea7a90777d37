-- Adds a credential in its state, unless the pool already has its refresh token, a credential of that id, whose token
-- may have rotated since, or one of its account.
-- KEYS: fingerprints of the pool, credentials of the pool, credential, accounts of the pool, hash of the credentials' own limits
-- ARGV: credential id, fingerprint, state, digest of the account ('' if not known), limits of its own ('' for none), then the
--       credential's fields and values
-- Result: '' if added, else the id of the credential that is there already
local existing_id = redis.call('HGET', KEYS[1], ARGV[2])
if existing_id then
    return existing_id
end
if redis.call('EXISTS', KEYS[3]) == 1 then
    return ARGV[1]
end
if ARGV[4] ~= '' then
    local known = redis.call('HGET', KEYS[4], ARGV[4])
    if known and redis.call('HEXISTS', KEYS[2], known) == 1 then
        return known
    end
    redis.call('HSET', KEYS[4], ARGV[4], ARGV[1])
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
if ARGV[5] ~= '' then
    redis.call('HSET', KEYS[5], ARGV[1], ARGV[5])
end
redis.call('HSET', KEYS[3], unpack(ARGV, 6))
redis.call('HSET', KEYS[2], ARGV[1], ARGV[3])
return ''
