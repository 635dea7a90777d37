-- Replaces a JSON record in a hash if its version is still the expected one (optimistic locking).
-- KEYS: hash
-- ARGV: field, expected version, new record
-- Result: 1 if replaced; 0 if the version differs or the record is gone
local stored = redis.call('HGET', KEYS[1], ARGV[1])
if not stored or cjson.decode(stored).version ~= tonumber(ARGV[2]) then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
