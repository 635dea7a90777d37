-- What an account has left of its limits; changes nothing. Runs after pace.lua.
-- KEYS: base of the account's pace
-- ARGV: its limits, not ''
-- Result: for each limit {name, limit, used, when a request fits, when all is free again}: in ms, 0 for now. For the gap `used` is 0.
local pace = open_pace(KEYS[1], ARGV[1])
find_pace_rest(pace, true)
local rows = {}
for _, name in ipairs(PACE_NAMES) do
    local log, limit = pace.logs[name], pace.limits[name]
    if log then
        local used = log.total - log.left
        rows[#rows + 1] = {'account_' .. name, limit, used, find_limit_rest(log, limit, pace_needs(pace, name)) or 0,
            used > 0 and leaves_at(name, log.tail) or 0}
    end
end
if pace.gap > 0 then
    local free = find_gap_end(pace, redis.call('HGET', pace.base, 'last')) or 0
    rows[#rows + 1] = {'account_gap', pace.gap, 0, free, free}
end
return rows
