-- Disables a credential and keeps its former state, so that resume.lua can put it back. Suspending twice keeps the first.
-- KEYS: credentials of the pool, credential, history
-- ARGV: credential id, reason, now
-- Result: 1 if it is suspended, 0 if it does not exist
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state then
    return 0
end
if redis.call('HEXISTS', KEYS[2], 'state_before') == 0 then
    local before = redis.call('HMGET', KEYS[2], 'reason', 'until')
    redis.call('HSET', KEYS[2], 'state_before', state, 'reason_before', before[1] or '', 'until_before', before[2] or '')
end
if state ~= 'disabled' then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100, '*', 'state', 'disabled', 'reason', ARGV[2])
end
redis.call('HSET', KEYS[1], ARGV[1], 'disabled')
redis.call('HSET', KEYS[2], 'reason', ARGV[2], 'until', '', 'state_since', ARGV[3])
return 1
