-- Begins a job that BLMOVE put into the intermediate queue: all of RQ's bookkeeping in one round trip.
-- Stands for rq.executions.prepare_execution and rq.worker.BaseWorker.prepare_job_execution (RQ 3.0).
-- Only who holds the credential's lease may begin (I3), and only a job that still lies in the intermediate queue: one that
-- was put back meanwhile is another's. Asked again with the same execution id, it answers the same.
-- KEYS: job, body, intermediate queue, worker, the worker's executions, started registry, execution, the job's executions,
--       lease, queue, the pool's breaker
-- ARGV: job id, worker name, execution id, now (ISO), now (seconds), time to live of the execution, of the worker,
--       what the lease must hold, '1' for a probe
-- A job whose web process has died is dropped, because nobody waits for its answer.
-- While the breaker is open only a probe may begin.
-- Result: 'gone' when the job is; 'not yours' without the lease, 'not now' with an open breaker, the job is put back; else {data, retries, executions that
--         the worker has already, body or false}
if redis.call('LREM', KEYS[3], 1, ARGV[1]) == 0 and redis.call('EXISTS', KEYS[7]) == 0 then
    return 'gone'
end
local found = redis.call('HMGET', KEYS[1], 'data', 'number_of_retries', 'farm_front', 'farm_cancelled')
if not found[1] then
    redis.call('DEL', KEYS[2])
    return 'gone'
end
if found[4] or (found[3] and redis.call('EXISTS', found[3]) == 1) then
    redis.call('DEL', KEYS[1], KEYS[2])
    return 'gone'
end
local composite = ARGV[1] .. ':' .. ARGV[3]
local refused = false
if redis.call('GET', KEYS[9]) ~= ARGV[8] then
    refused = 'not yours'
elseif ARGV[9] ~= '1' and redis.call('EXISTS', KEYS[11]) == 1 then
    refused = 'not now'
end
if refused then
    redis.call('DEL', KEYS[7], KEYS[8])
    redis.call('SREM', KEYS[5], composite)
    redis.call('ZREM', KEYS[6], composite)
    redis.call('LPUSH', KEYS[10], ARGV[1])
    return refused
end
redis.call('SREM', KEYS[5], composite)
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
