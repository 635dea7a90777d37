-- Withdraws a job that waits, or tells the worker that runs it to stop, by RQ's own stop command.
-- A job that a worker has popped but not begun is deleted; the worker finds nothing and takes the next.
-- A job that runs is marked too: should its attempt end before the command arrives, it is not tried again.
-- KEYS: queue list, job hash, body
-- ARGV: job id, prefix of RQ's command channels, '1' to withdraw only a job that still waits
-- Result: 'withdrawn', 'stopping', 'running' (it runs and was left alone) or 'gone'
if redis.call('LREM', KEYS[1], 1, ARGV[1]) > 0 then
    redis.call('DEL', KEYS[2], KEYS[3])
    return 'withdrawn'
end
local found = redis.call('HMGET', KEYS[2], 'status', 'worker_name')
if not found[1] then
    redis.call('DEL', KEYS[3])
    return 'gone'
end
if ARGV[3] == '1' then
    return 'running'
end
if found[1] == 'started' and found[2] and found[2] ~= '' then
    redis.call('HSET', KEYS[2], 'farm_cancelled', '1')
    redis.call('PUBLISH', ARGV[2] .. found[2], cjson.encode({command = 'stop-job', job_id = ARGV[1]}))
    return 'stopping'
end
redis.call('DEL', KEYS[2], KEYS[3])
return 'withdrawn'
