-- Forgets a private credential with all that its pool has left, unless it was used since, or has work.
-- KEYS: private pools by their last use, credentials of the private pool, credential, fingerprints of the pool, history,
--       API keys by their last use, RQ's queues, queue of the interactive band, of batch, started registry of either,
--       failed registry of either, then what else goes
-- ARGV: the private pool's name, credential id, since when it must not have been used, id that it has as a caller, prefixes
--       of what RQ keeps of a job
-- Result: 1 when it was there and is forgotten
local used = redis.call('ZSCORE', KEYS[1], ARGV[1])
if used and tonumber(used) > tonumber(ARGV[3]) then
    return 0
end
-- A person's word stands: what is disabled would come back with its next request.
if redis.call('HGET', KEYS[2], ARGV[2]) == 'disabled' and ARGV[3] ~= 'inf' then
    return 0
end
for i = 8, 9 do
    if redis.call('LLEN', KEYS[i]) > 0 or redis.call('ZCARD', KEYS[i + 2]) > 0 then
        redis.call('ZADD', KEYS[1], 'XX', redis.call('TIME')[1], ARGV[1])
        return 0
    end
end
local there = redis.call('EXISTS', KEYS[3])
for _, print in ipairs(redis.call('HMGET', KEYS[3], 'fingerprint', 'origin')) do
    if print then
        redis.call('HDEL', KEYS[4], print)
    end
end
for i = 12, 13 do
    for _, job in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
        redis.call('DEL', ARGV[5] .. job, ARGV[6] .. job)
    end
end
redis.call('HDEL', KEYS[6], ARGV[4])
redis.call('SREM', KEYS[7], KEYS[8], KEYS[9])
redis.call('DEL', KEYS[2], KEYS[3], KEYS[5], unpack(KEYS, 12))
redis.call('ZREM', KEYS[1], ARGV[1])
return there
