-- Gives a credential a newer refresh token of its account, and removes the double that has brought it.
-- The former token is kept in `previous`, in case the new one never becomes valid. All its tokens so far stay known
-- (`aliases`), so that a file that still has one of them adds nothing. What a refused token had led to ends; a
-- credential that an operator has disabled stays so.
-- Runs after change_state.lua.
-- KEYS: credential, credentials of the pool, fingerprints of the pool, history, then of the double: credential, history, activity
-- ARGV: credential id, sealed token, its fingerprint, now, id of the double ('' for none), fields and values to set
-- Result: 1 if replaced, 0 if the credential is gone
local MAX_ALIASES = 20
local state = redis.call('HGET', KEYS[2], ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'sealed', 'fingerprint', 'origin', 'aliases', 'label', 'exported_at')
if not state or not stored[1] then
    return 0
end
local aliases = {}
local function keep(fingerprint)
    if fingerprint and fingerprint ~= ARGV[3] then
        redis.call('HSET', KEYS[3], fingerprint, ARGV[1])
        table.insert(aliases, fingerprint)
    end
end
for alias in string.gmatch(stored[4] or '', '%S+') do
    table.insert(aliases, alias)
end
if stored[2] ~= ARGV[3] then
    keep(stored[2])
    redis.call('HSET', KEYS[1], 'previous', stored[1], 'rotated_at', ARGV[4])
    redis.call('HINCRBY', KEYS[1], 'rotations', 1)
    if stored[6] then
        redis.call('HSET', KEYS[1], 'export_outdated', 1)
    end
end
if ARGV[5] ~= '' then
    local double = redis.call('HMGET', KEYS[5], 'fingerprint', 'origin', 'label')
    keep(double[1])
    if double[2] ~= double[1] then
        keep(double[2])
    end
    if (stored[5] or '') == '' and double[3] then
        redis.call('HSET', KEYS[1], 'label', double[3])
    end
    redis.call('HDEL', KEYS[2], ARGV[5])
    redis.call('DEL', KEYS[5], KEYS[6], KEYS[7])
end
while #aliases > MAX_ALIASES do
    redis.call('HDEL', KEYS[3], table.remove(aliases, 1))
end
redis.call('HSET', KEYS[1], 'sealed', ARGV[2], 'fingerprint', ARGV[3], 'refreshed_at', ARGV[4],
    'aliases', table.concat(aliases, ' '), unpack(ARGV, 6))
redis.call('HSET', KEYS[3], ARGV[3], ARGV[1])
redis.call('HDEL', KEYS[1], 'refusals')
if state == 'dead' or state == 'foreign' then
    change_state({states = KEYS[2], credential = KEYS[1], history = KEYS[4], id = ARGV[1]},
        {state = 'active', reason = '', ['until'] = '', now = ARGV[4], note = 'signed in again'})
end
return 1
