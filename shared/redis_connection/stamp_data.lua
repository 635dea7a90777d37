-- Stamps the data in Redis with the version that is about to write it, unless the data needs a newer one.
-- KEYS: hash: `version` (the newest that has written), `needs` (the oldest that may work with the data)
-- ARGV: own version, oldest version that may work with what it writes
-- Result: {1 if stamped, else 0; the stored version; the version that the data needs}
local stored = redis.call('HMGET', KEYS[1], 'version', 'needs')
local version, needs = tonumber(stored[1] or 0), tonumber(stored[2] or 0)
if needs > tonumber(ARGV[1]) then
    return {0, version, needs}
end
redis.call('HSET', KEYS[1], 'version', math.max(version, ARGV[1]), 'needs', math.max(needs, ARGV[2]))
return {1, version, needs}
