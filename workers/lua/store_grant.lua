-- Stores what a refresh brought, field by field, before it is used (I4).
-- The rotated token replaces only the one it was exchanged for; an answer without one keeps what is stored.
-- KEYS: credential, lease, fingerprints of the pool
-- ARGV: what the lease must hold, fingerprint of the token that was exchanged, sealed access token, its expiry,
--       now, fingerprint of the new refresh token ('' for none), the new one sealed, credential id
-- Result: 1 stored and the lease is held; 0 stored but the lease is lost; -1 the credential is gone or has another token
if redis.call('HGET', KEYS[1], 'fingerprint') ~= ARGV[2] then
    return -1
end
redis.call('HSET', KEYS[1], 'access', ARGV[3], 'access_expires', ARGV[4], 'refreshed_at', ARGV[5])
if ARGV[6] ~= '' and ARGV[6] ~= ARGV[2] then
    redis.call('HSET', KEYS[1], 'sealed', ARGV[7], 'fingerprint', ARGV[6])
    redis.call('HINCRBY', KEYS[1], 'rotations', 1)
    redis.call('HSET', KEYS[3], ARGV[6], ARGV[8])
    if redis.call('HGET', KEYS[1], 'origin') ~= ARGV[2] then
        redis.call('HDEL', KEYS[3], ARGV[2])
    end
end
return redis.call('GET', KEYS[2]) == ARGV[1] and 1 or 0
