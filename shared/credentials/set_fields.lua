-- Sets fields of a credential if it still exists, so that one removed meanwhile does not leave a partial hash behind.
-- KEYS: the credential's hash
-- ARGV: a field to delete ('' for none), then fields and values
-- Result: 1 if they were set
if redis.call('HEXISTS', KEYS[1], 'pool') == 0 then
    return 0
end
if ARGV[1] ~= '' then
    redis.call('HDEL', KEYS[1], ARGV[1])
end
redis.call('HSET', KEYS[1], unpack(ARGV, 2))
return 1
