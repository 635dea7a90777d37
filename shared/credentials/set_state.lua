-- Changes the state of a credential if its current state permits that. A cooldown is never shortened.
-- KEYS: credentials of the pool, credential, history
-- ARGV: credential id, new state, reason, until (seconds since the epoch, or ''), now, permitted current states (',a,b,')
-- Result: 1 if changed or already in effect, 0 if the current state forbids it or the credential is gone
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state or not string.find(ARGV[6], ',' .. state .. ',', 1, true) then
    return 0
end
if state == 'cooling' and ARGV[2] == 'cooling' then
    local cooling_until = redis.call('HGET', KEYS[2], 'until')
    if tonumber(cooling_until or 0) and tonumber(cooling_until or 0) > (tonumber(ARGV[4]) or 0) then
        return 1
    end
end
if state ~= ARGV[2] then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100, '*', 'state', ARGV[2], 'reason', ARGV[3])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
-- Whoever sets a state decides over what suspend.lua has kept.
redis.call('HDEL', KEYS[2], 'state_before', 'reason_before', 'until_before')
redis.call('HSET', KEYS[2], 'reason', ARGV[3], 'until', ARGV[4], 'state_since', ARGV[5])
return 1
