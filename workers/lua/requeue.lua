-- Puts a job whose attempt failed to the front of its queue, for another worker; not one whose caller has left.
-- Stands for rq.job.Job.retry with enqueue_at_front (RQ 3.0).
-- KEYS: job, queue, worker, the worker's executions, started registry, execution, the job's executions, body
-- ARGV: job id, execution id, seconds worked, now (ISO), 1 when the attempt counts, else 0
-- Asked again, it does nothing.
-- Result: 1 when requeued, 0 when the job is gone (a person deleted it) or was requeued before
local composite = ARGV[1] .. ':' .. ARGV[2]
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
if redis.call('EXISTS', KEYS[1]) == 0 then
    return 0
end
if redis.call('HGET', KEYS[1], 'farm_cancelled') then
    redis.call('DEL', KEYS[1], KEYS[8])
    return 0
end
redis.call('HINCRBY', KEYS[1], 'number_of_retries', ARGV[5])
redis.call('HSET', KEYS[1], 'status', 'queued', 'worker_name', '', 'enqueued_at', ARGV[4])
-- A probe that failed goes to the back, so that a request which fails everywhere does not hold all the others up.
redis.call(ARGV[5] == '0' and 'RPUSH' or 'LPUSH', KEYS[2], ARGV[1])
return 1
