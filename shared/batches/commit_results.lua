-- Drops results from Redis whose parts are durable in the store, and keeps the parts' sizes.
-- KEYS: the record, the lease, results
-- ARGV: holder of the lease, how many results, their bytes, sizes of the output's parts before, and now, those of the errors' parts
--       before, and now (JSON)
-- Result: 1 if they were dropped
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
local parts = redis.call('HMGET', KEYS[1], 'staged', 'output_parts', 'error_parts')
if parts[1] ~= ARGV[2] or (parts[2] or '[]') ~= ARGV[4] or (parts[3] or '[]') ~= ARGV[6] then
    return 0
end
redis.call('LTRIM', KEYS[3], ARGV[2], -1)
redis.call('HSET', KEYS[1], 'staged', 0, 'output_parts', ARGV[5], 'error_parts', ARGV[7])
redis.call('HINCRBY', KEYS[1], 'result_bytes', 0 - ARGV[3])
return 1
