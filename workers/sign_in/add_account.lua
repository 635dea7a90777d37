-- Adds the credential of an account that has signed in, unless the account or its token is there already.
-- KEYS: fingerprints of the pool, credentials of the pool, accounts of the pool, credential
-- ARGV: credential id, fingerprint, digest of the account ('' if not known), then the credential's fields and values
-- Result: '' if added (by an earlier call too: idempotent), else the id of the credential that is there already
local known = ARGV[3] ~= '' and redis.call('HGET', KEYS[3], ARGV[3])
if known and redis.call('HEXISTS', KEYS[2], known) == 1 then
    return known ~= ARGV[1] and known or ''
end
local same_token = redis.call('HGET', KEYS[1], ARGV[2])
if same_token then
    return same_token ~= ARGV[1] and same_token or ''
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[4], unpack(ARGV, 4))
redis.call('HSET', KEYS[2], ARGV[1], 'active')
if ARGV[3] ~= '' then
    redis.call('HSET', KEYS[3], ARGV[3], ARGV[1])
end
return ''
