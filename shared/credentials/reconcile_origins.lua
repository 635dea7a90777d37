-- Marks the credentials of a pool that belong to another token endpoint, or are of another kind, `foreign`, and reactivates those that were and
-- do no more. A credential that is disabled or dead stays so.
-- Runs after change_state.lua.
-- KEYS: credentials of the pool
-- ARGV: origin of the pool's token endpoint ('' when it is not known: nothing changes), the simulator's origin,
--       key prefix of credentials, key prefix of histories, kind of the pool's credentials
-- Result: numbers of credentials that became foreign, and active
local foreign_count, active_count = 0, 0
local pool_origin = ARGV[1]
if pool_origin == '' then
    return {0, 0}
end
local now = redis.call('TIME')
now = now[1] .. '.' .. string.format('%06d', now[2])

local function set_state(id, state, reason)
    change_state({states = KEYS[1], credential = ARGV[3] .. id, history = ARGV[4] .. id, id = id},
        {state = state, reason = reason, ['until'] = '', now = now})
end

local function describe(origin)
    if origin == '' then
        return 'its token endpoint is not known yet, and is not the simulator'
    end
    local owner = origin == ARGV[2] and 'the simulator' or origin
    local present = pool_origin == ARGV[2] and 'the simulator' or pool_origin
    return 'belongs to ' .. owner .. ', but its pool uses ' .. present
end

-- Why a credential does not belong here, '' if it does.
local function find_mismatch(id)
    local fields = redis.call('HMGET', ARGV[3] .. id, 'token_origin', 'kind')
    local origin, kind = fields[1] or '', fields[2] or 'refresh_token'
    if kind ~= ARGV[5] then
        return 'is of kind ' .. kind .. ', but its pool takes ' .. ARGV[5]
    end
    if origin == '' and pool_origin ~= ARGV[2] then
        origin = pool_origin
        redis.call('HSET', ARGV[3] .. id, 'token_origin', origin)
    end
    return origin ~= pool_origin and describe(origin) .. ': ./farm credentials adopt ' .. id or ''
end

local states = redis.call('HGETALL', KEYS[1])
for i = 1, #states, 2 do
    local id, state = states[i], states[i + 1]
    local mismatch = find_mismatch(id)
    if mismatch ~= '' and (state == 'active' or state == 'cooling') then
        set_state(id, 'foreign', mismatch)
        foreign_count = foreign_count + 1
    elseif mismatch == '' and state == 'foreign' then
        set_state(id, 'active', '')
        active_count = active_count + 1
    end
end
return {foreign_count, active_count}
