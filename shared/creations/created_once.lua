-- Functions for scripts that create something once per idempotency key: creation and record are one step, so that no
-- death of a front, and no lost reply of Redis, comes between them.
-- Returns what the script has to return if the key was used before: {'created', answer of the first request}, or
-- {'reused'} if that asked for something else; nil if nothing was created under it, or there is no key (print '').
local function find_creation(record, print)
    local kept = print ~= '' and redis.call('HMGET', record, 'print', 'answer') or {}
    if not kept[1] then
        return nil
    end
    return kept[1] == print and {'created', kept[2]} or {'reused'}
end

local function keep_creation(record, print, answer, seconds)
    if print ~= '' then
        redis.call('HSET', record, 'print', print, 'answer', answer)
        redis.call('EXPIRE', record, seconds)
    end
end
