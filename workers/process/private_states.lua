-- Reads the states of all private credentials at once: one command, whatever their number.
-- KEYS: private pools by last use
-- ARGV: prefix of the pools' credentials, of their circuit breakers
-- Result: for each pool, the least recently used first, {pool, {credential, state, …}, {field, value, … of its breaker}}
local result = {}
for i, pool in ipairs(redis.call('ZRANGE', KEYS[1], 0, -1)) do
    result[i] = {pool, redis.call('HGETALL', ARGV[1] .. pool), redis.call('HGETALL', ARGV[2] .. pool)}
end
return result
