-- Marks a job whose reply has started, so that orphan recovery does not retry it (I6), and deletes its body, which only a
-- retry would need. Runs after bodies.lua.
-- KEYS: job
-- ARGV: job id
if redis.call('EXISTS', KEYS[1]) == 1 then
    redis.call('HSET', KEYS[1], 'farm_begun', '1')
    delete_body(ARGV[1])
end
return 1
