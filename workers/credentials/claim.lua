-- Leases credentials that nobody holds to a worker process.
-- KEYS: credentials of the pool, then lease, credential, lease, credential, …
-- ARGV: worker process, lease time in milliseconds, most to claim, states that may be claimed (',a,b,'),
--       then the credentials' ids
-- Result: place of the credential among those asked for (from 1), its fencing number, until when it cools ('' for not),
--         place, number, …
local claimed = {}
local left = tonumber(ARGV[3])
for i = 2, #KEYS, 2 do
    if left == 0 then
        break
    end
    local place = i / 2
    local state = redis.call('HGET', KEYS[1], ARGV[4 + place])
    if state and string.find(ARGV[4], ',' .. state .. ',', 1, true) and redis.call('EXISTS', KEYS[i]) == 0 then
        local fence = redis.call('HINCRBY', KEYS[i + 1], 'fence', 1)
        redis.call('SET', KEYS[i], ARGV[1] .. ':' .. fence, 'PX', ARGV[2])
        claimed[#claimed + 1] = place
        claimed[#claimed + 1] = fence
        claimed[#claimed + 1] = state == 'cooling' and redis.call('HGET', KEYS[i + 1], 'until') or ''
        left = left - 1
    end
end
return claimed
