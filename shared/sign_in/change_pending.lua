-- Changes fields of a sign-in while it is pending; its secrets go with its end, and it counts no more as pending.
-- KEYS: sign-in, sign-ins
-- ARGV: id, now, fields and values
-- Result: 1 if they were changed, 0 if it is over or forgotten
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then
    return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 3))
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then
    redis.call('HDEL', KEYS[1], 'secrets', 'answer')
    redis.call('ZADD', KEYS[2], 'XX', ARGV[2], ARGV[1])
end
return 1
