-- Disables a credential and keeps its former state, so that resume.lua can put it back. Suspending twice keeps the first.
-- Runs after change_state.lua.
-- KEYS: credentials of the pool, credential, history
-- ARGV: credential id, reason, now
-- Result: 1 if it is suspended, 0 if it does not exist
local FIELDS = {'state_before', 'reason_before', 'until_before', 'evidence_before', 'retry_after_before'}
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state then
    return 0
end
local kept = redis.call('HMGET', KEYS[2], unpack(FIELDS))
if not kept[1] then
    kept = {state, unpack(redis.call('HMGET', KEYS[2], 'reason', 'until', 'evidence', 'retry_after'))}
end
change_state({states = KEYS[1], credential = KEYS[2], history = KEYS[3], id = ARGV[1]},
    {state = 'disabled', reason = ARGV[2], ['until'] = '', now = ARGV[3]})
for i, field in ipairs(FIELDS) do
    redis.call('HSET', KEYS[2], field, kept[i] or '')
end
return 1
