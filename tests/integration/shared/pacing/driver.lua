-- Drives pace.lua at a time of its own. Runs after pace.lua.
-- KEYS: base of the pace
-- ARGV: its limits, now (ms), 'begin', 'find' or 'settle', then for `settle` what `begin` has returned, seconds since it was sent, tokens
-- Result: `begin`: {what was counted} or {rest until (ms), limit}; `find`: {rest until (ms), limit} or {}
local pace = open_pace(KEYS[1], ARGV[1])
pace.now = tonumber(ARGV[2])
if ARGV[3] == 'settle' then
    settle_pace(pace, ARGV[4], tonumber(ARGV[5]), tonumber(ARGV[6]))
    return {}
end
local rest_until, limit = find_pace_rest(pace, ARGV[3] == 'find')
if limit then
    return {string.format('%.0f', rest_until), limit}
end
return ARGV[3] == 'begin' and {count_pace(pace)} or {}
