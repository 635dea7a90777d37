-- Lets anyone run a line whose run has ended without a result.
-- KEYS: running lines
-- ARGV: the line's number, its value, its new value
-- Result: 1 if it was this run's
if redis.call('HGET', KEYS[1], ARGV[1]) ~= ARGV[2] then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
