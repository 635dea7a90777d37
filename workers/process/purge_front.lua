-- Takes the waiting jobs of a web process that has died out of a pool's queues.
-- What was reserved for them is given back to their keys. Comes after limits.lua, fair.lua and ending.lua.
-- KEYS: queue of the interactive band, of batch, the pool's fair queue, its workers that wait
-- ARGV: what their field `farm_front` holds, prefix of job hashes, prefix of body keys
-- Result: how many
local pool = {base = KEYS[3], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[4], jobs = ARGV[2]}
local purged = 0
for _, queue in ipairs({KEYS[1], KEYS[2]}) do
    for _, id in ipairs(redis.call('LRANGE', queue, 0, -1)) do
        local hash = ARGV[2] .. id
        if redis.call('HGET', hash, 'farm_front') == ARGV[1] then
            release_waiting_job(pool, hash, id)
            redis.call('LREM', queue, 1, id)
            redis.call('DEL', hash, ARGV[3] .. id)
            purged = purged + 1
        end
    end
end
return purged
