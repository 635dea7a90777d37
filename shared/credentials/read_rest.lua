-- Reads when the credentials of a pool that rests as a whole come back.
-- KEYS: credentials of the pool, the pool's fair queue
-- ARGV: prefix of credentials' hashes, now (seconds since the epoch)
-- Result: {} while a credential is in service or none is usable, else {average seconds per request, '' if not known,
--         end of each cooldown (seconds since the epoch), …}
local states = redis.call('HGETALL', KEYS[1])
local rest = {redis.call('HGET', KEYS[2], 'cost') or ''}
for i = 1, #states, 2 do
    if states[i + 1] == 'active' then
        return {}
    elseif states[i + 1] == 'cooling' then
        local cooling_until = redis.call('HGET', ARGV[1] .. states[i], 'until')
        if (tonumber(cooling_until or nil) or 0) <= tonumber(ARGV[2]) then
            return {}
        end
        rest[#rest + 1] = cooling_until
    end
end
return #rest > 1 and rest or {}
