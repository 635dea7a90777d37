-- Records that the token endpoint has failed or refused a credential, and opens the pool's token breaker when several
-- credentials failed within the window and none was granted a token meanwhile.
-- A credential that is refused again although another was granted a token in between proves nothing about the endpoint.
-- KEYS: failures (sorted set: credential -> time), time of the last grant, token breaker, credentials of the pool
-- ARGV: credential id, window (seconds), credentials that make several, seconds until the first probe, reason,
--       seconds after which an open breaker expires, when the credential was refused before (0 for never)
-- Result: {0 closed, 1 open, 2 just opened; now; time of the last grant ('' for never)}
local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1000000
local granted_at = redis.call('GET', KEYS[2])
if redis.call('EXISTS', KEYS[3]) == 1 then
    return {1, tostring(now), granted_at or ''}
end
local refused_at = tonumber(ARGV[7])
if refused_at > 0 and granted_at and tonumber(granted_at) > refused_at then
    return {0, tostring(now), granted_at}
end
redis.call('ZADD', KEYS[1], now, ARGV[1])
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now - ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[2])
local usable = 0
for _, state in ipairs(redis.call('HVALS', KEYS[4])) do
    if state == 'active' or state == 'cooling' then
        usable = usable + 1
    end
end
-- One credential alone proves nothing about the endpoint either.
if redis.call('ZCARD', KEYS[1]) < math.max(2, math.min(tonumber(ARGV[3]), usable)) then
    return {0, tostring(now), granted_at or ''}
end
redis.call('HSET', KEYS[3], 'since', now, 'reason', ARGV[5], 'probe_at', now + ARGV[4], 'failed_probes', 0)
redis.call('EXPIRE', KEYS[3], ARGV[6])
redis.call('DEL', KEYS[1])
return {2, tostring(now), granted_at or ''}
