-- Stores what a refresh brought, field by field, before it is used (I4).
-- The rotated token replaces only the one that the store had when it was asked for; an answer without one keeps what is
-- stored. The token that it replaces is kept beside it until the next rotation, that is, until the new one has worked.
-- A credential that was called dead meanwhile, by somebody whose refresh lost the race, has just shown that it lives.
-- KEYS: credential, lease, fingerprints of the pool, credentials of the pool
-- ARGV: what the lease must hold, fingerprint of the token that the store had, sealed access token, its expiry,
--       now, fingerprint of the new refresh token ('' for none), the new one sealed, credential id
-- Result: 1 stored and the lease is held, 2 as well and an export of the credential has become worthless by it;
--         0 stored but the lease is lost; -1 the credential is gone or has another token
local had = redis.call('HMGET', KEYS[1], 'fingerprint', 'sealed', 'origin', 'reason')
if had[1] ~= ARGV[2] then
    return -1
end
local outdated = false
redis.call('HSET', KEYS[1], 'access', ARGV[3], 'access_expires', ARGV[4], 'refreshed_at', ARGV[5])
if ARGV[6] ~= '' and ARGV[6] ~= ARGV[2] then
    redis.call('HSET', KEYS[1], 'sealed', ARGV[7], 'fingerprint', ARGV[6], 'previous', had[2])
    redis.call('HINCRBY', KEYS[1], 'rotations', 1)
    local exported = redis.call('HMGET', KEYS[1], 'exported_at', 'export_outdated')
    outdated = exported[1] and not exported[2]
    if outdated then
        redis.call('HSET', KEYS[1], 'export_outdated', 1)
    end
    redis.call('HSET', KEYS[3], ARGV[6], ARGV[8])
    if had[3] ~= ARGV[2] then
        redis.call('HDEL', KEYS[3], ARGV[2])
    end
end
if redis.call('HGET', KEYS[4], ARGV[8]) == 'dead' and had[4] == 'invalid_grant' then
    redis.call('HSET', KEYS[4], ARGV[8], 'active')
    redis.call('HSET', KEYS[1], 'reason', '', 'until', '', 'state_since', ARGV[5])
end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
return outdated and 2 or 1
