-- Notes in a job that the head of its answer has gone out, so that whoever finds it orphaned does not try it again (I6).
-- KEYS: job
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('HSET', KEYS[1], 'farm_begun', '1')
end
return 1
