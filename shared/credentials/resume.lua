-- Puts a suspended credential back into its former state, unless its state has been set since.
-- KEYS: credentials of the pool, credential, history
-- ARGV: credential id, now
-- Result: 1 if it was put back
local before = redis.call('HMGET', KEYS[2], 'state_before', 'reason_before', 'until_before')
local state = redis.call('HGET', KEYS[1], ARGV[1])
redis.call('HDEL', KEYS[2], 'state_before', 'reason_before', 'until_before')
if not before[1] or state ~= 'disabled' then
    return 0
end
if before[1] ~= state then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100, '*', 'state', before[1], 'reason', before[2])
end
redis.call('HSET', KEYS[1], ARGV[1], before[1])
redis.call('HSET', KEYS[2], 'reason', before[2], 'until', before[3], 'state_since', ARGV[2])
return 1
