-- Registers a worker with RQ, unless its private credential has been forgotten, with its queues: RQ cleans only the
-- registrations of queues that exist.
-- KEYS: private pools by last use, RQ's set of workers, then its sets of workers by queue
-- ARGV: private pool, the worker's key
if redis.call('ZSCORE', KEYS[1], ARGV[1]) then
    for i = 2, #KEYS do
        redis.call('SADD', KEYS[i], ARGV[2])
    end
end
