-- Leases credentials that nobody holds to a worker process.
-- KEYS: lease, credential, lease, credential, …
-- ARGV: worker process, lease time in milliseconds, most to claim
-- Result: place of the credential among those asked for (from 1), its fencing number, place, number, …
local claimed = {}
local left = tonumber(ARGV[3])
for i = 1, #KEYS, 2 do
    if left == 0 then
        break
    end
    if redis.call('EXISTS', KEYS[i]) == 0 and redis.call('EXISTS', KEYS[i + 1]) == 1 then
        local fence = redis.call('HINCRBY', KEYS[i + 1], 'fence', 1)
        redis.call('SET', KEYS[i], ARGV[1] .. ':' .. fence, 'PX', ARGV[2])
        claimed[#claimed + 1] = (i + 1) / 2
        claimed[#claimed + 1] = fence
        left = left - 1
    end
end
return claimed
