-- Releases the lock of a device's polls, unless another process has taken it over.
-- KEYS: lock
-- ARGV: id of the process
if redis.call('GET', KEYS[1]) == ARGV[1] then
    redis.call('DEL', KEYS[1])
end
