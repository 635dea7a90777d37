-- Leases free credentials to a worker process.
-- KEYS: credentials of the pool, then lease and credential of each candidate
-- ARGV: worker process, lease time (ms), how many to claim at most, states that may be claimed (',a,b,'),
--       origin of the pool's token endpoint (credentials of another one are left alone; '': all), the simulator's origin,
--       then the id of each candidate
-- Result: for each claimed one its position among the candidates (from 1), its fencing token, and the end of its
--         cooldown ('' for none)
local pool_origin, simulator = ARGV[5], ARGV[6]

-- A credential that an older version stored has no origin yet: it adopts the pool's, unless that is the simulator's.
local function belongs_here(credential)
    if pool_origin == '' then
        return true
    end
    local origin = redis.call('HGET', credential, 'token_origin') or ''
    if origin == '' and pool_origin ~= simulator then
        redis.call('HSET', credential, 'token_origin', pool_origin)
        return true
    end
    return origin == pool_origin
end

local claimed = {}
local remaining = tonumber(ARGV[3])
for i = 2, #KEYS, 2 do
    if remaining == 0 then
        break
    end
    local position = i / 2
    local state = redis.call('HGET', KEYS[1], ARGV[6 + position])
    if state and string.find(ARGV[4], ',' .. state .. ',', 1, true) and redis.call('EXISTS', KEYS[i]) == 0
        and belongs_here(KEYS[i + 1]) then
        local fence = redis.call('HINCRBY', KEYS[i + 1], 'fence', 1)
        redis.call('SET', KEYS[i], ARGV[1] .. ':' .. fence, 'PX', ARGV[2])
        claimed[#claimed + 1] = position
        claimed[#claimed + 1] = fence
        claimed[#claimed + 1] = state == 'cooling' and redis.call('HGET', KEYS[i + 1], 'until') or ''
        remaining = remaining - 1
    end
end
return claimed
