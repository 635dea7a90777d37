-- Counts a request that gets the answer to another one against its API key's requests per minute, as soon as they let it.
-- Until then it waits as a held request does, and behind those that are held when it comes. Comes after held_requests.lua.
-- ARGV: demand on the key's limits (JSON), seconds for which it may wait, others that wait before it like this ('' when it
--       asks again: it has let those before it go first)
-- Result: {'' if it is counted, 'waits', or 'refused'; seconds until it should ask again, or come back; requests in the last
--         minute; seconds until they leave the window; requests ahead of it}
local demand, patience, before = cjson.decode(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local names, now = limit_keys(demand.key), read_limit_clock(demand)
release_held(demand.key, now)
local held = count_held(names)
local ahead = before and held + before or 0
local used, wait, reset = count_recent_requests(names.requests, now, demand.rpm, ahead)
if wait <= 0 then
    local window = {used, reset, 0, 0}
    count_in_window(names, {rpm = demand.rpm, tpm = 0}, 0, now, window)
    return {'', '0', tostring(window[1]), tostring(window[2]), 0}
end
local is_full = before and ahead >= demand.max_waiting
if is_full and ahead > 0 then
    -- A place is free as soon as the first one goes on.
    wait = select(2, count_recent_requests(names.requests, now, demand.rpm, 0))
elseif before and wait > patience then
    is_full, wait = true, wait - patience
end
if is_full then
    wait = book_retry(names, wait, WINDOW_SECONDS / demand.rpm, now)
end
return {is_full and 'refused' or 'waits', tostring(wait), tostring(used), tostring(reset), ahead}
