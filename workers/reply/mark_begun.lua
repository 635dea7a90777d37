-- Marks a job whose reply has started, so that orphan recovery does not retry it (I6).
-- KEYS: job
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('HSET', KEYS[1], 'farm_begun', '1')
end
return 1
