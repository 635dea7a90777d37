-- Puts a job whose attempt has failed back at the front of its queue (a failed probe at the end), or ends it
-- if its caller has gone.
-- Ending it releases what it had reserved of its API key's limits. Runs after limits.lua, fair.lua and ending.lua.
-- Stands for rq.job.Job.retry with enqueue_at_front (RQ 3.0). Idempotent.
-- KEYS: job, body, worker, the worker's executions, started registry, execution, the job's executions,
--       interactive queue, batch queue, the pool's fair queue, its idle workers, request log
-- ARGV: job id, execution id, seconds worked, now (ISO), now (seconds), 1 when the attempt counts, else 0,
--       prefix of job hashes, entry in the request log if its caller has gone ('' for none)
-- Result: 1 when requeued, 0 when it was ended, deleted by an operator, or requeued before
local pool = {base = KEYS[10], interactive = KEYS[8], batch = KEYS[9], idle = KEYS[11], jobs = ARGV[7]}
local hash, composite, counts = KEYS[1], ARGV[1] .. ':' .. ARGV[2], ARGV[6] ~= '0'
redis.call('DEL', KEYS[6], KEYS[7])
redis.call('SREM', KEYS[4], composite)
if redis.call('ZREM', KEYS[5], composite) == 0 then
    return 0
end
if redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('HINCRBY', KEYS[3], 'failed_job_count', 1)
    redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', ARGV[3])
    redis.call('HSET', KEYS[3], 'state', 'idle', 'last_heartbeat', ARGV[4])
end
if redis.call('EXISTS', hash) == 0 then
    return 0
end
local owner = read_owner(hash)
record_worked_time(pool, owner, ARGV[3])
if redis.call('HEXISTS', hash, 'farm_cancelled') == 1 then
    release_waiting_job(pool, hash, ARGV[1])
    if ARGV[8] ~= '' then
        redis.call('XADD', KEYS[12], '*', 'e', ARGV[8])
    end
    redis.call('DEL', hash)
    delete_body(ARGV[1])
    return 0
end
redis.call('HINCRBY', hash, 'number_of_retries', ARGV[6])
redis.call('HSET', hash, 'status', 'queued', 'worker_name', '', 'enqueued_at', ARGV[4])
-- A failed probe goes to the end of the queue, so that a request which fails everywhere does not hold up the others.
if owner.key then
    rejoin_queue(pool, owner.band, owner.key, ARGV[1], counts)
    redis.call('HSET', hash, 'farm_lined', 1)
end
push_to_rq(pool, owner.band, ARGV[1], tonumber(ARGV[5]), counts and 'LPUSH' or 'RPUSH')
return 1
