-- Gives an API key a new secret, if its record is still the expected one (optimistic locking).
-- KEYS: records by digest, digests by id, superseded secrets
-- ARGV: id, digest of the present secret, expected version, digest of the new secret, new record, entry of the superseded
-- Result: 1 if it has the new secret; 0 if its record has changed or is gone
local stored = redis.call('HGET', KEYS[1], ARGV[2])
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] or not stored or cjson.decode(stored).version ~= tonumber(ARGV[3]) then
    return 0
end
redis.call('HDEL', KEYS[1], ARGV[2])
redis.call('HSET', KEYS[1], ARGV[4], ARGV[5])
redis.call('HSET', KEYS[2], ARGV[1], ARGV[4])
redis.call('HSET', KEYS[3], ARGV[2], ARGV[6])
return 1
