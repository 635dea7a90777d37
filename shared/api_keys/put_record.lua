-- Replaces a JSON record of a hash, unless somebody has changed it meanwhile.
-- KEYS: hash
-- ARGV: field, version that the record must have, the new record
-- Result: 1 when replaced, 0 when the record is of another version, or gone
local found = redis.call('HGET', KEYS[1], ARGV[1])
if not found or cjson.decode(found).version ~= tonumber(ARGV[2]) then
    return 0
end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[3])
return 1
