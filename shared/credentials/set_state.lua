-- Moves a credential to another state, if it is in one of the states that may go there.
-- KEYS: credentials of the pool, credential, its history
-- ARGV: credential id, new state, reason, until (seconds since the epoch, or ''), now, states it may leave (',a,b,')
-- Result: 1 when moved (or already there), 0 when its state forbids it or it is gone
-- A credential that cools is never made to cool for a shorter time.
local state = redis.call('HGET', KEYS[1], ARGV[1])
if not state or not string.find(ARGV[6], ',' .. state .. ',', 1, true) then
    return 0
end
if state == 'cooling' and ARGV[2] == 'cooling' then
    local before = redis.call('HGET', KEYS[2], 'until')
    if tonumber(before or 0) and tonumber(before or 0) > (tonumber(ARGV[4]) or 0) then
        return 1
    end
end
if state ~= ARGV[2] then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', 100, '*', 'state', ARGV[2], 'reason', ARGV[3])
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('HSET', KEYS[2], 'reason', ARGV[3], 'until', ARGV[4], 'state_since', ARGV[5])
return 1
