-- Admits one relay request: keeps its body, saves its RQ job and pushes the job's id, unless the queue is full.
-- Stands for rq.Queue.enqueue_job (RQ 3.0), which needs two round trips and knows no bound.
-- KEYS: queue list, RQ's set of queues, job hash, body
-- ARGV: most jobs that may wait, job id, milliseconds to keep the body, body, then the job's fields and values
-- Asked again for a job that is there, it does nothing.
-- Result: {1, jobs in the queue} when admitted, {0, jobs in the queue} when full
local waiting = redis.call('LLEN', KEYS[1])
if redis.call('EXISTS', KEYS[3]) == 1 then
    return {1, waiting}
end
if waiting >= tonumber(ARGV[1]) then
    return {0, waiting}
end
redis.call('SET', KEYS[4], ARGV[4], 'PX', ARGV[3])
redis.call('HSET', KEYS[3], unpack(ARGV, 5))
redis.call('SADD', KEYS[2], KEYS[1])
return {1, redis.call('RPUSH', KEYS[1], ARGV[2])}
