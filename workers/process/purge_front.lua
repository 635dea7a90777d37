-- Removes a dead front's waiting jobs from a pool's queues and returns what was reserved for them to their API keys.
-- Needs limits.lua, fair.lua, bodies.lua, held_requests.lua and ending.lua before it.
-- KEYS: queue of the interactive band, queue of the batch band, the pool's fair queue, its idle workers
-- ARGV: value of `farm_front` in the jobs of that front, prefix of job hashes
-- Returns the number of jobs removed.
local pool = {base = KEYS[3], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[4], jobs = ARGV[2]}
local purged = 0

local function purge(id)
    local hash = ARGV[2] .. id
    if redis.call('HGET', hash, 'farm_front') ~= ARGV[1] then
        return false
    end
    release_waiting_job(pool, hash, id)
    redis.call('DEL', hash)
    delete_body(id)
    purged = purged + 1
    return true
end

-- Held ones first, or they would move into the queues meanwhile.
for _, band in ipairs({INTERACTIVE, BATCH}) do
    for _, id in ipairs(redis.call('ZRANGE', deferred_registry(band, pool_name_of(pool)), 0, -1)) do
        purge(id)
    end
end
for _, queue in ipairs({KEYS[1], KEYS[2]}) do
    for _, id in ipairs(redis.call('LRANGE', queue, 0, -1)) do
        if purge(id) then
            redis.call('LREM', queue, 1, id)
        end
    end
end
return purged
