-- Ends a job: all of RQ's bookkeeping in one round trip; the job, its body and its execution are gone afterwards.
-- Stands for BaseWorker.handle_job_success with result_ttl=0, cleanup_execution and set_state (RQ 3.0).
-- KEYS: job, body, worker, the worker's executions, started registry, execution, the job's executions, count of served jobs
-- Asked again, or for an execution that another has ended, it does nothing.
-- ARGV: job id, execution id, 'successful_job_count' or 'failed_job_count', seconds worked, now (ISO)
local composite = ARGV[1] .. ':' .. ARGV[2]
redis.call('DEL', KEYS[6])
redis.call('SREM', KEYS[4], composite)
if redis.call('ZREM', KEYS[5], composite) == 0 then
    return 0
end
redis.call('DEL', KEYS[1], KEYS[2], KEYS[7], KEYS[1] .. ':dependents', KEYS[1] .. ':dependencies')
redis.call('INCR', KEYS[8])
if redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('HINCRBY', KEYS[3], ARGV[3], 1)
    redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', ARGV[4])
    redis.call('HSET', KEYS[3], 'state', 'idle', 'last_heartbeat', ARGV[5])
end
return 1
