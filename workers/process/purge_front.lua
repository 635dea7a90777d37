-- Removes a dead front's waiting jobs from a pool's queues and returns what was reserved for them to their API keys.
-- Needs limits.lua, fair.lua, bodies.lua and ending.lua before it.
-- KEYS: queue of the interactive band, queue of the batch band, the pool's fair queue, its idle workers
-- ARGV: value of `farm_front` in the jobs of that front, prefix of job hashes
-- Returns the number of jobs removed.
local pool = {base = KEYS[3], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[4], jobs = ARGV[2]}
local purged = 0
for _, queue in ipairs({KEYS[1], KEYS[2]}) do
    for _, id in ipairs(redis.call('LRANGE', queue, 0, -1)) do
        local hash = ARGV[2] .. id
        if redis.call('HGET', hash, 'farm_front') == ARGV[1] then
            release_waiting_job(pool, hash, id)
            redis.call('LREM', queue, 1, id)
            redis.call('DEL', hash)
            delete_body(id)
            purged = purged + 1
        end
    end
end
return purged
