-- Deletes a lease if the worker process still holds it.
-- KEYS: lease
-- ARGV: its expected value
-- Result: 1 when it was deleted
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
