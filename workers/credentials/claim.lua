-- Leases free credentials to a worker process.
-- KEYS: for each candidate the credentials of its pool, its lease, the credential
-- ARGV: worker process, lease time (ms), how many to claim at most, states that may be claimed (',a,b,'), the simulator's
--       origin, then for each candidate its id and the origin of its pool's token endpoint (a credential of another one is
--       left alone; '': any)
-- Result: for each claimed one its position among the candidates (from 1), its fencing token, and the end of its
--         cooldown ('' for none, -1 for a rest by its own limits)
local simulator = ARGV[5]

-- A credential that an older version stored has no origin yet: it adopts the pool's, unless that is the simulator's.
local function belongs_here(credential, pool_origin)
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

-- The end of a cooldown; -1 for a rest by the account's own limits, which tell anew.
local function find_end(credential)
    local fields = redis.call('HMGET', credential, 'until', 'reason')
    return string.find(fields[2] or '', '^limit_reached') and '-1' or fields[1] or ''
end

local claimed = {}
local remaining = tonumber(ARGV[3])
for position = 1, #KEYS / 3 do
    if remaining == 0 then
        break
    end
    local credentials, lease, credential = KEYS[3 * position - 2], KEYS[3 * position - 1], KEYS[3 * position]
    local id, pool_origin = ARGV[2 * position + 4], ARGV[2 * position + 5]
    local state = redis.call('HGET', credentials, id)
    if state and string.find(ARGV[4], ',' .. state .. ',', 1, true) and redis.call('EXISTS', lease) == 0
        and belongs_here(credential, pool_origin) then
        local fence = redis.call('HINCRBY', credential, 'fence', 1)
        redis.call('SET', lease, ARGV[1] .. ':' .. fence, 'PX', ARGV[2])
        claimed[#claimed + 1] = position
        claimed[#claimed + 1] = fence
        claimed[#claimed + 1] = state == 'cooling' and find_end(credential) or ''
        remaining = remaining - 1
    end
end
return claimed
