-- Changes the state of a credential if its current state permits that. A cooldown is never shortened.
-- Runs after change_state.lua.
-- KEYS: credentials of the pool, credential, history
-- ARGV: credential id, new state, reason, until (seconds since the epoch, or ''), now, permitted current states (',a,b,'),
--       evidence, seconds to wait that it names ('' for none)
-- Result: 1 if it is in the new state now, 0 if the current state forbids it or the credential is gone
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
change_state({states = KEYS[1], credential = KEYS[2], history = KEYS[3], id = ARGV[1]}, {state = ARGV[2],
    reason = ARGV[3], ['until'] = ARGV[4], now = ARGV[5], evidence = ARGV[7], retry_after = ARGV[8]})
return 1
