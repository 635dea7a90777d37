-- Counts a request that makes no job against its API key's limit of requests per minute, unless that is reached.
-- Comes after limits.lua.
-- ARGV: demand on the key's limits (JSON), now (seconds)
-- Result: {seconds until a retry can succeed, 0 if it was counted; requests in the last minute; seconds until they leave
--         the window}
local demand, now = cjson.decode(ARGV[1]), tonumber(ARGV[2])
local list = limit_keys(demand.key).requests
local used, wait = count_recent_requests(list, now, demand.rpm)
if wait > 0 then
    return {tostring(wait), tostring(used), tostring(WINDOW_SECONDS)}
end
redis.call('RPUSH', list, now)
redis.call('EXPIRE', list, WINDOW_SECONDS + 1)
return {'0', tostring(used + 1), tostring(WINDOW_SECONDS)}
