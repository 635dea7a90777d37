-- Takes the waiting jobs of a web process that has died out of a queue.
-- KEYS: queue
-- ARGV: what their field `farm_front` holds, prefix of job keys, prefix of body keys
-- Result: how many
local purged = 0
for _, id in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if redis.call('HGET', ARGV[2] .. id, 'farm_front') == ARGV[1] then
        redis.call('LREM', KEYS[1], 1, id)
        redis.call('DEL', ARGV[2] .. id, ARGV[3] .. id)
        purged = purged + 1
    end
end
return purged
