-- Raises an alert or ends it, each once, and adds the notice of it.
-- KEYS: the lease of whoever watches, alerts, notices
-- ARGV: the holder of the lease, id of the alert, the alert ('' to end it), the notice, maximum number of notices
-- Result: 1 if this has changed anything
if redis.call('GET', KEYS[1]) ~= ARGV[1] then
    return 0
end
local changed
if ARGV[3] == '' then
    changed = redis.call('HDEL', KEYS[2], ARGV[2])
else
    changed = redis.call('HSETNX', KEYS[2], ARGV[2], ARGV[3])
end
if changed == 1 then
    redis.call('XADD', KEYS[3], 'MAXLEN', '~', ARGV[5], '*', 'n', ARGV[4])
end
return changed
