-- Withdraws a waiting job, or tells the worker that runs it to stop, by RQ's own stop-job command.
-- A job that a worker has popped but not started is deleted; the worker finds nothing and takes the next one.
-- A running job is also marked as cancelled: if its attempt fails before the command arrives, the job is not retried.
-- The reservation of a withdrawn job is released, and that of one that is gone. Comes after limits.lua, fair.lua,
-- bodies.lua, held_requests.lua and ending.lua.
-- KEYS: RQ queue of the interactive band, of the batch band, job hash, the pool's fair queue, its idle workers
-- ARGV: job id, prefix of RQ's command channels, '1' to withdraw only a waiting job, prefix of job hashes, API key id
--       ('' if its limits are not known), why it is cancelled, for its worker
-- Result: 'withdrawn', 'stopping', 'running' (left alone, because only a waiting job was to be withdrawn) or 'gone'
local pool = {base = KEYS[4], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[5], jobs = ARGV[4]}
local fields = redis.call('HMGET', KEYS[3], 'status', 'worker_name', 'farm_band', 'farm_lined')
local status, worker, band = fields[1], fields[2], fields[3] or INTERACTIVE
if fields[4] == HELD or fields[4] == ASIDE or remove_retry(pool, ARGV[1]) or remove_from_rq(pool, band, ARGV[1]) then
    release_waiting_job(pool, KEYS[3], ARGV[1])
    redis.call('DEL', KEYS[3])
    delete_body(ARGV[1])
    return 'withdrawn'
end
if not status then
    delete_body(ARGV[1])
    if ARGV[5] ~= '' then
        end_usage(ARGV[5], ARGV[1], 0, false)
    end
    return 'gone'
end
if ARGV[3] == '1' then
    return 'running'
end
if status == 'started' and worker and worker ~= '' then
    redis.call('HSET', KEYS[3], 'farm_cancelled', '1')
    redis.call('PUBLISH', ARGV[2] .. worker, cjson.encode({command = 'stop-job', job_id = ARGV[1], reason = ARGV[6]}))
    return 'stopping'
end
-- A failed job is settled already and kept for the dashboard.
if status == 'failed' then
    return 'gone'
end
release_waiting_job(pool, KEYS[3], ARGV[1])
redis.call('DEL', KEYS[3])
delete_body(ARGV[1])
return 'withdrawn'
