-- Adds seconds to what the workers of credentials did in an hour.
-- KEYS: the hour's hash
-- ARGV: its TTL in seconds, then field and seconds of each gain
-- Result: none
for i = 2, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
redis.call('EXPIRE', KEYS[1], ARGV[1])
