-- Counts a request that makes no job against its API key's limit of requests per minute, unless that is reached.
-- Comes after limits.lua.
-- ARGV: demand on the key's limits (JSON)
-- Result: {seconds until a retry can succeed, 0 if it was counted; requests in the last minute; seconds until they leave
--         the window}
local demand = cjson.decode(ARGV[1])
local now, list = read_limit_clock(demand), limit_keys(demand.key).requests
local used, wait = count_recent_requests(list, now, demand.rpm, 0)
if wait > 0 then
    return {tostring(wait), tostring(used), tostring(WINDOW_SECONDS)}
end
redis.call('RPUSH', list, now)
redis.call('EXPIRE', list, WINDOW_SECONDS + 1)
return {'0', tostring(used + 1), tostring(WINDOW_SECONDS)}
