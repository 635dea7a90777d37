-- Changes fields of a sign-in while it is pending; its secrets go with its end.
-- KEYS: sign-in
-- ARGV: fields and values
-- Result: 1 if they were changed, 0 if it is over or forgotten
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then
    return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV))
if redis.call('HGET', KEYS[1], 'state') ~= 'pending' then
    redis.call('HDEL', KEYS[1], 'secrets', 'answer')
end
return 1
