-- Reads when the credentials of a pool that rests as a whole come back.
-- KEYS: credentials of the pool, the pool's fair queue
-- ARGV: prefix of credentials' hashes, now (seconds since the epoch), reason of a refused API key's cooldown
-- Result: {} while a credential is in service or none is usable, else {average seconds per request, '' if not known;
--         1 if all are refused API keys, else 0; end of each cooldown (seconds since the epoch), …}
local states = redis.call('HGETALL', KEYS[1])
local rest = {redis.call('HGET', KEYS[2], 'cost') or '', 1}
for i = 1, #states, 2 do
    if states[i + 1] == 'active' then
        return {}
    elseif states[i + 1] == 'cooling' then
        local fields = redis.call('HMGET', ARGV[1] .. states[i], 'until', 'reason')
        if (tonumber(fields[1] or nil) or 0) <= tonumber(ARGV[2]) then
            return {}
        end
        if fields[2] ~= ARGV[3] then
            rest[2] = 0
        end
        rest[#rest + 1] = fields[1]
    end
end
return #rest > 2 and rest or {}
