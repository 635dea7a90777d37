-- Sets or removes limits of a credential's own, if it still exists.
-- KEYS: the credential's hash, hash of the credentials' own limits
-- ARGV: credential id, then names of limits and values ('' leaves the limit to the pool)
-- Result: 1 if the credential exists
if redis.call('HEXISTS', KEYS[1], 'pool') == 0 then
    return 0
end
local stored = redis.call('HGET', KEYS[2], ARGV[1])
local limits = stored and cjson.decode(stored) or {}
for i = 2, #ARGV, 2 do
    limits[ARGV[i]] = tonumber(ARGV[i + 1])
end
if next(limits) then
    redis.call('HSET', KEYS[2], ARGV[1], cjson.encode(limits))
else
    redis.call('HDEL', KEYS[2], ARGV[1])
end
return 1
