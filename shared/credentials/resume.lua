-- Puts a suspended credential back into its former state, unless its state has been set since.
-- Runs after change_state.lua.
-- KEYS: credentials of the pool, credential, history
-- ARGV: credential id, now
-- Result: 1 if it was put back
local before = redis.call('HMGET', KEYS[2], 'state_before', 'reason_before', 'until_before', 'evidence_before',
    'retry_after_before')
redis.call('HDEL', KEYS[2], 'state_before', 'reason_before', 'until_before', 'evidence_before', 'retry_after_before')
if not before[1] or redis.call('HGET', KEYS[1], ARGV[1]) ~= 'disabled' then
    return 0
end
change_state({states = KEYS[1], credential = KEYS[2], history = KEYS[3], id = ARGV[1]}, {state = before[1],
    reason = before[2] or '', ['until'] = before[3] or '', now = ARGV[2], evidence = before[4] or '',
    retry_after = before[5] or ''})
return 1
