-- Withdraws a job that waits, or tells the worker that runs it to stop, by RQ's own stop command.
-- A job that a worker has popped but not begun is deleted; the worker finds nothing and takes the next.
-- A job that runs is marked too: should its attempt end before the command arrives, it is not tried again.
-- What was reserved for a job that is withdrawn is given back to its key. Comes after limits.lua, fair.lua and ending.lua.
-- KEYS: queue of the interactive band, of batch, job hash, body, the pool's fair queue, its workers that wait
-- ARGV: job id, prefix of RQ's command channels, '1' to withdraw only a job that still waits, prefix of job hashes
-- Result: 'withdrawn', 'stopping', 'running' (it runs and was left alone) or 'gone'
local pool = {base = KEYS[5], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[6], jobs = ARGV[4]}
local found = redis.call('HMGET', KEYS[3], 'status', 'worker_name', 'farm_band')
if remove_from_rq(pool, found[3] or INTERACTIVE, ARGV[1]) then
    release_waiting_job(pool, KEYS[3], ARGV[1])
    redis.call('DEL', KEYS[3], KEYS[4])
    return 'withdrawn'
end
if not found[1] then
    redis.call('DEL', KEYS[4])
    return 'gone'
end
if ARGV[3] == '1' then
    return 'running'
end
if found[1] == 'started' and found[2] and found[2] ~= '' then
    redis.call('HSET', KEYS[3], 'farm_cancelled', '1')
    redis.call('PUBLISH', ARGV[2] .. found[2], cjson.encode({command = 'stop-job', job_id = ARGV[1]}))
    return 'stopping'
end
-- One that has failed is settled, and kept for the dashboard.
if found[1] == 'failed' then
    return 'gone'
end
release_waiting_job(pool, KEYS[3], ARGV[1])
redis.call('DEL', KEYS[3], KEYS[4])
return 'withdrawn'
