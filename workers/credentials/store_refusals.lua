-- Stores the refusals of a credential's refresh token, if the worker process still holds the credential.
-- KEYS: credential, lease
-- ARGV: value of the lease, the refusals as JSON ('' for none)
if redis.call('GET', KEYS[2]) == ARGV[1] and redis.call('EXISTS', KEYS[1]) == 1 then
    if ARGV[2] == '' then
        redis.call('HDEL', KEYS[1], 'refusals')
    else
        redis.call('HSET', KEYS[1], 'refusals', ARGV[2])
    end
end
