-- Counts a request of an account that no job is begun for, if it may be sent now. Runs after pace.lua.
-- KEYS: base of the account's pace
-- ARGV: its limits, not ''
-- Result: false when it is counted; {seconds, limit} when the account has to rest first
local pace = open_pace(KEYS[1], ARGV[1])
local rest_until, limit = find_pace_rest(pace)
if limit then
    return {string.format('%.3f', (rest_until - pace.now) / 1000), limit}
end
count_pace(pace)
return false
