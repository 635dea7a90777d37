-- Begins a job that BLMOVE put into the intermediate queue: all of RQ's bookkeeping in one round trip.
-- Stands for rq.executions.prepare_execution and rq.worker.BaseWorker.prepare_job_execution (RQ 3.0).
-- KEYS: job, body, intermediate queue, worker, the worker's executions, started registry, execution, the job's executions
-- ARGV: job id, worker name, execution id, now (ISO), now (seconds), time to live of the execution, of the worker
-- Result: false when the job is gone; else {data, retries, executions that the worker has already, body or false}
redis.call('LREM', KEYS[3], 1, ARGV[1])
local found = redis.call('HMGET', KEYS[1], 'data', 'number_of_retries')
if not found[1] then
    redis.call('DEL', KEYS[2])
    return false
end
local composite = ARGV[1] .. ':' .. ARGV[3]
local running = redis.call('SCARD', KEYS[5])
redis.call('HSET', KEYS[7], 'id', ARGV[3], 'job_id', ARGV[1], 'created_at', ARGV[5], 'last_heartbeat', ARGV[5],
    'worker_name', ARGV[2])
redis.call('EXPIRE', KEYS[7], ARGV[6])
redis.call('ZADD', KEYS[8], ARGV[5] + ARGV[6] + 60, ARGV[3])
redis.call('EXPIRE', KEYS[8], ARGV[6] + 60)
redis.call('ZADD', KEYS[6], ARGV[5] + ARGV[6], composite)
redis.call('SADD', KEYS[5], composite)
redis.call('EXPIRE', KEYS[5], ARGV[6])
redis.call('HSET', KEYS[4], 'state', 'busy', 'last_heartbeat', ARGV[4])
redis.call('EXPIRE', KEYS[4], ARGV[7])
redis.call('HSET', KEYS[1], 'status', 'started', 'started_at', ARGV[4], 'last_heartbeat', ARGV[4],
    'worker_name', ARGV[2])
redis.call('PERSIST', KEYS[1])
return {found[1], found[2] or '0', running, redis.call('GET', KEYS[2])}
