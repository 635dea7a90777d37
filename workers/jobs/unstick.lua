-- Puts a job back at the front of its queue if it is still in the intermediate queue.
-- KEYS: intermediate queue, queue, job
-- ARGV: job id
-- Result: 1 when it was put back
if redis.call('LREM', KEYS[1], 1, ARGV[1]) == 0 or redis.call('EXISTS', KEYS[3]) == 0 then
    return 0
end
redis.call('LPUSH', KEYS[2], ARGV[1])
return 1
