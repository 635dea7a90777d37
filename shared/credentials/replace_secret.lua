-- Gives a credential the newer secret of its client or service account. Its former secrets stay known (`aliases`), so that a
-- file that still has one of them adds nothing. What the former one had led to ends; a credential that an operator has
-- disabled stays so. Runs after change_state.lua.
-- KEYS: credential, credentials of the pool, fingerprints of the pool, history
-- ARGV: credential id, sealed secret, its fingerprint, now
-- Result: 1 if replaced, 0 if it has been the credential's secret already, or the credential is gone
local state = redis.call('HGET', KEYS[2], ARGV[1])
local stored = redis.call('HMGET', KEYS[1], 'fingerprint', 'aliases', 'refusals')
if not state or not stored[1] or redis.call('HEXISTS', KEYS[3], ARGV[3]) == 1 then
    return 0
end
local aliases = (stored[2] and stored[2] ~= '') and stored[2] .. ' ' .. stored[1] or stored[1]
redis.call('HSET', KEYS[1], 'sealed', ARGV[2], 'fingerprint', ARGV[3], 'aliases', aliases)
redis.call('HDEL', KEYS[1], 'refusals', 'access', 'access_expires')
redis.call('HSET', KEYS[3], ARGV[3], ARGV[1])
if state == 'dead' or (state == 'cooling' and stored[3]) then
    change_state({states = KEYS[2], credential = KEYS[1], history = KEYS[4], id = ARGV[1]},
        {state = 'active', reason = '', ['until'] = '', now = ARGV[4], note = 'a newer secret was imported'})
end
return 1
