-- Stores the tokens of a refresh before they are used (I4).
-- A rotated refresh token replaces only the one that is stored as the current; without rotation that one stays. The
-- token that was exchanged is kept in `previous` until the next rotation, in case the new one never became valid. When
-- it was the superseded token that was accepted, it becomes the current one again, unless it was rotated.
-- A credential that was marked dead meanwhile, by a refresh that lost the race, has just proved to be alive.
-- Idempotent: a retry after a lost reply finds its own new token and stores nothing twice.
-- Runs after change_state.lua.
-- KEYS: credential, lease, fingerprints of the pool, credentials of the pool, history
-- ARGV: value of the lease, fingerprint of the current token, sealed access token, its expiry, now,
--       fingerprint of the new current token ('' for none), that token sealed, credential id,
--       the token to keep as `previous`, sealed ('' for the current one), id of the token refresher
-- Result: 1 stored; 2 stored, and an exported copy of the refresh token has become useless; 0 stored, but the lease is
--         lost; -1 not stored: the credential is gone or has another token
local stored = redis.call('HMGET', KEYS[1], 'fingerprint', 'sealed', 'origin', 'reason')
local is_rotated = ARGV[6] ~= '' and ARGV[6] ~= ARGV[2]
local is_retry = is_rotated and stored[1] == ARGV[6]
if stored[1] ~= ARGV[2] and not is_retry then
    return -1
end
local is_outdated = false
redis.call('HSET', KEYS[1], 'access', ARGV[3], 'access_expires', ARGV[4], 'refreshed_at', ARGV[5])
redis.call('HDEL', KEYS[1], 'refusals', 'in_doubt_since')
if redis.call('HGET', KEYS[1], 'refreshing_by') == ARGV[10] then
    redis.call('HDEL', KEYS[1], 'refreshing_by', 'refreshing_token', 'refreshing_since')
end
if is_rotated then
    if not is_retry then
        redis.call('HSET', KEYS[1], 'sealed', ARGV[7], 'fingerprint', ARGV[6],
            'previous', ARGV[9] ~= '' and ARGV[9] or stored[2], 'rotated_at', ARGV[5])
        redis.call('HINCRBY', KEYS[1], 'rotations', 1)
        redis.call('HSET', KEYS[3], ARGV[6], ARGV[8])
        if stored[3] ~= ARGV[2] then
            redis.call('HDEL', KEYS[3], ARGV[2])
        end
    end
    local exported = redis.call('HMGET', KEYS[1], 'exported_at', 'export_outdated')
    is_outdated = exported[1] and (is_retry or not exported[2])
    if is_outdated then
        redis.call('HSET', KEYS[1], 'export_outdated', 1)
    end
end
-- The code of another refusal than `invalid_grant` follows it, after a colon.
local was_refused = (stored[4] or ''):match('^invalid_grant$') or (stored[4] or ''):match('^invalid_grant: ')
if was_refused and redis.call('HGET', KEYS[4], ARGV[8]) == 'dead' then
    change_state({states = KEYS[4], credential = KEYS[1], history = KEYS[5], id = ARGV[8]},
        {state = 'active', reason = '', ['until'] = '', now = ARGV[5], note = 'granted a token meanwhile'})
end
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
return is_outdated and 2 or 1
