-- Lets an API key's held requests go on as far as its limits allow, and tells when one of them should check again.
-- Comes after limits.lua, fair.lua, bodies.lua and held_requests.lua.
-- ARGV: API key id, request id ('' for none), new limits of the key (JSON, '' if unchanged), prefix of job hashes,
--       now (seconds, '' for the clock of Redis)
-- Result: seconds until the request should check again, '0' if it is not held
local key, job = ARGV[1], ARGV[2]
local now = read_limit_clock({now = tonumber(ARGV[5])})
local limits = limit_keys(key).limits
if ARGV[3] ~= '' and redis.call('EXISTS', limits) == 1 then
    store_limits(limit_keys(key), cjson.decode(ARGV[3]))
end
free_lost_slots(key, now, ARGV[4])
release_held(key, now)
return tostring(job ~= '' and next_recheck(key, job, now) or 0)
