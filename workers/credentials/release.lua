-- Gives a lease back, if it is still the caller's.
-- KEYS: lease
-- ARGV: what it must hold
-- Result: 1 when it was given back
if redis.call('GET', KEYS[1]) == ARGV[1] then
    return redis.call('DEL', KEYS[1])
end
return 0
