-- Deletes a private credential and everything its pool has stored, unless it was used recently or has work.
-- KEYS: private pools by last use, credentials of the private pool, credential, fingerprints of the pool, history,
--       last use of API keys, RQ's set of queues, queue of the interactive band, of the batch band, started registry of
--       either, failed registry of either, RQ's set of workers of either queue, RQ's set of workers,
--       hash of the credentials' own limits, unfinished batches of the caller, then further keys to delete
-- ARGV: name of the private pool, credential id, time of last use up to which it may be deleted (`inf`: always),
--       its caller id, key prefix of RQ's jobs, of RQ's results
-- Result: 1 if it existed and was deleted
local last_used = redis.call('ZSCORE', KEYS[1], ARGV[1])
if last_used and tonumber(last_used) > tonumber(ARGV[3]) then
    return 0
end
-- A disabled credential stays while it is idle: once deleted, its caller's next request would add it again as active.
-- So does a foreign one: it is idle because it is out of service, and a rotated token is nowhere else.
local state = redis.call('HGET', KEYS[2], ARGV[2])
if (state == 'disabled' or state == 'foreign') and ARGV[3] ~= 'inf' then
    return 0
end
-- A batch has no jobs while it waits, for an upstream that is down or for the store of files.
local is_busy = ARGV[3] ~= 'inf' and redis.call('EXISTS', KEYS[18]) == 1
for i = 8, 9 do
    is_busy = is_busy or redis.call('LLEN', KEYS[i]) > 0 or redis.call('ZCARD', KEYS[i + 2]) > 0
end
if is_busy then
    redis.call('ZADD', KEYS[1], 'XX', redis.call('TIME')[1], ARGV[1])
    return 0
end
local existed = redis.call('EXISTS', KEYS[3])
for _, fingerprint in ipairs(redis.call('HMGET', KEYS[3], 'fingerprint', 'origin')) do
    if fingerprint then
        redis.call('HDEL', KEYS[4], fingerprint)
    end
end
for i = 12, 13 do
    for _, job in ipairs(redis.call('ZRANGE', KEYS[i], 0, -1)) do
        redis.call('DEL', ARGV[5] .. job, ARGV[6] .. job)
    end
end
redis.call('HDEL', KEYS[6], ARGV[4])
redis.call('HDEL', KEYS[17], ARGV[2])
redis.call('SREM', KEYS[7], KEYS[8], KEYS[9])
-- Registrations of workers whose process has died: RQ cleans only those of queues that exist.
for i = 14, 15 do
    for _, worker in ipairs(redis.call('SMEMBERS', KEYS[i])) do
        redis.call('SREM', KEYS[16], worker)
    end
end
redis.call('DEL', KEYS[2], KEYS[3], KEYS[5], KEYS[12], KEYS[13], KEYS[14], KEYS[15], unpack(KEYS, 19))
redis.call('ZREM', KEYS[1], ARGV[1])
return existed
