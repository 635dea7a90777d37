-- Settles which of the results that wait in Redis make up the next part: all, unless that was settled before.
-- KEYS: the record, the lease, results
-- ARGV: holder of the lease
-- Result: {how many, sizes of the output's parts so far, sizes of the errors' parts (JSON)}; none if the lease is lost
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return {}
end
local staged = tonumber(redis.call('HGET', KEYS[1], 'staged') or '0')
if staged == 0 then
    staged = redis.call('LLEN', KEYS[3])
    redis.call('HSET', KEYS[1], 'staged', staged)
end
local parts = redis.call('HMGET', KEYS[1], 'output_parts', 'error_parts')
return {staged, parts[1] or '[]', parts[2] or '[]'}
