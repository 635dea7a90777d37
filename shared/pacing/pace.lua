-- Paces an account: a sliding log for each of its limits, in Redis's own time, which all hosts share.
-- A log holds what was used in the last minute or day. A request is counted when its job is begun, so that neither a kill nor
-- another host forgets it, and once it is over as of the moment at which it was sent: what counts at the upstream is when it
-- arrives, and a busy worker may send it late.
-- The time of an entry is the end of its slot, so in no window is there more than the limit.
--   <base>                   hash: `last` (ms: when the last request began or ended), `mean` (tokens of a request, moving
--                            average), `resting` (set while a rest is published as the credential's state)
--   <base>:rpm, :tpm, :rpd   list: '<time in ms> <cumulative count>', oldest first. The first entry has left the window: what is
--                            used is the last count less the first.
-- Slots per window, which bound a list.
local PACE_SLOTS = 500
-- Added to each window, since requests take differently long to the upstream.
local PACE_MARGIN_MS = 500
local PACE_NAMES = {'rpm', 'tpm', 'rpd'}
local PACE_WINDOWS_MS = {rpm = 60000, tpm = 60000, rpd = 86400000}
-- Weight of the latest request in the average of tokens.
local PACE_MEAN_WEIGHT = 0.2
-- Life of the hash.
local PACE_TTL_MS = 172800000
-- Entries looked through at once.
local PACE_PAGE = 32

-- What is to be paced: nil if the account has no limits. `limits` is '<rpm> <tpm> <rpd> <gap in ms>', 0 for none.
local function open_pace(base, limits)
    if limits == '' then
        return nil
    end
    local rpm, tpm, rpd, gap = limits:match('^(%d+) (%d+) (%d+) (%d+)$')
    local time = redis.call('TIME')
    return {base = base, now = tonumber(time[1]) * 1000 + math.floor(tonumber(time[2]) / 1000), gap = tonumber(gap),
        limits = {rpm = tonumber(rpm), tpm = tonumber(tpm), rpd = tonumber(rpd)}}
end

local function parse_pace_entry(entry)
    local at, count = entry:match('^(%d+) (%d+)$')
    return tonumber(at), tonumber(count)
end

local function format_pace_entry(at, count)
    return string.format('%.0f %.0f', at, count)
end

local function pace_log_key(pace, name)
    return pace.base .. ':' .. name
end

-- The end of the slot that holds a time.
local function pace_slot(name, at)
    local slot = PACE_WINDOWS_MS[name] / PACE_SLOTS
    return math.ceil(at / slot) * slot
end

-- When an entry of that time leaves the window.
local function leaves_at(name, at)
    return at + PACE_WINDOWS_MS[name] + PACE_MARGIN_MS
end

local function keep_pace_log(pace, name)
    redis.call('PEXPIRE', pace_log_key(pace, name), leaves_at(name, pace_slot(name, pace.now)) - pace.now)
end

-- The clock was set back, or is another server's: what was counted later than now counts as of now.
local function set_back_pace_log(key, last_slot, total)
    while true do
        local tail = redis.call('LINDEX', key, -1)
        if not tail or parse_pace_entry(tail) <= last_slot then
            break
        end
        redis.call('RPOP', key)
    end
    redis.call('RPUSH', key, format_pace_entry(last_slot, total))
end

-- A log without what has left the window: {name, key, tail (time of the last entry, nil for none), total, left (counts)}.
local function open_pace_log(pace, name, read_only)
    local log = {name = name, key = pace_log_key(pace, name), total = 0, left = 0}
    local tail = redis.call('LINDEX', log.key, -1)
    if not tail then
        return log
    end
    log.tail, log.total = parse_pace_entry(tail)
    if leaves_at(name, log.tail) <= pace.now then
        if not read_only then
            redis.call('DEL', log.key)
        end
        return {name = name, key = log.key, total = 0, left = 0}
    end
    if log.tail > pace_slot(name, pace.now) and not read_only then
        log.tail = pace_slot(name, pace.now)
        set_back_pace_log(log.key, log.tail, log.total)
    end
    local position = 0
    while true do
        local entries = redis.call('LRANGE', log.key, position, position + 1)
        local _, count = parse_pace_entry(entries[1])
        log.left = count
        if not entries[2] or leaves_at(name, (parse_pace_entry(entries[2]))) > pace.now then
            return log
        end
        if read_only then
            position = position + 1
        else
            redis.call('LPOP', log.key)
        end
    end
end

-- When so much has left that the count of what has left is `count` at least.
local function find_pace_free(log, count)
    local first = 1
    while true do
        local entries = redis.call('LRANGE', log.key, first, first + PACE_PAGE - 1)
        for _, entry in ipairs(entries) do
            local at, so_far = parse_pace_entry(entry)
            if so_far >= count then
                return leaves_at(log.name, at)
            end
        end
        if #entries == 0 then
            return 0
        end
        first = first + PACE_PAGE
    end
end

-- When (ms) a request that needs so much of the limit fits; nil if it does now. One that needs more than the limit may begin when
-- nothing is used. At the limit no request begins, also if it needs nothing as far as is known.
local function find_limit_rest(log, limit, needed)
    local used = log.total - log.left
    if used > 0 and used + math.max(1, needed) > limit then
        return find_pace_free(log, math.min(log.total, log.total + math.max(1, needed) - limit))
    end
end

-- What a request needs of a limit.
local function pace_needs(pace, name)
    return name == 'tpm' and pace.mean or 1
end

-- When (ms) the gap after the last request is over; nil without one, or if it is over now.
local function find_gap_end(pace, last)
    local free = pace.gap > 0 and last and math.min(tonumber(last), pace.now) + pace.gap
    return free and free > pace.now and free or nil
end

-- Until when (ms) the account has to rest before its next request, and by which limit; nil if it may begin now.
local function find_pace_rest(pace, read_only)
    local fields = redis.call('HMGET', pace.base, 'last', 'mean', 'resting')
    pace.mean, pace.resting, pace.logs = math.floor(tonumber(fields[2] or 0) + 0.5), fields[3], {}
    local rest, by = pace.now, nil
    for _, name in ipairs(PACE_NAMES) do
        local limit = pace.limits[name]
        if limit > 0 then
            pace.logs[name] = open_pace_log(pace, name, read_only)
            local free = find_limit_rest(pace.logs[name], limit, pace_needs(pace, name))
            if free and free > rest then
                rest, by = free, name
            end
        end
    end
    local gap_end = find_gap_end(pace, fields[1])
    if gap_end and gap_end > rest then
        rest, by = gap_end, 'gap'
    end
    if by then
        return rest, 'account_' .. by
    end
end

local function add_to_pace_log(pace, log, amount)
    local at = pace_slot(log.name, pace.now)
    local entry = format_pace_entry(at, log.total + amount)
    if not log.tail then
        redis.call('RPUSH', log.key, '0 0', entry)
    elseif log.tail == at then
        redis.call('LSET', log.key, -1, entry)
    else
        redis.call('RPUSH', log.key, entry)
    end
    keep_pace_log(pace, log.name)
end

-- Counts a request that begins now, after find_pace_rest has let it. Returns what settle_pace has to know.
local function count_pace(pace)
    local counted = {rpm = 0, tpm = 0, rpd = 0}
    for name, log in pairs(pace.logs) do
        counted[name] = pace_needs(pace, name)
        if counted[name] > 0 then
            add_to_pace_log(pace, log, counted[name])
        end
    end
    if pace.gap > 0 then
        redis.call('HSET', pace.base, 'last', pace.now)
        redis.call('PEXPIRE', pace.base, PACE_TTL_MS)
    end
    return string.format('%.0f %.0f %.0f %.0f', pace.now, counted.rpm, counted.tpm, counted.rpd)
end

-- Takes the entries from the slot `first` on off a log. Returns them as {time, amount}, and the count before them.
local function cut_pace_log(key, first)
    local position, taken = redis.call('LLEN', key) - 1, {}
    while position > 0 do
        local at, count = parse_pace_entry(redis.call('LINDEX', key, position))
        if at < first then
            break
        end
        table.insert(taken, 1, {at, count})
        position = position - 1
    end
    if position < 0 then
        redis.call('RPUSH', key, '0 0')
        return taken, 0
    end
    local _, before = parse_pace_entry(redis.call('LINDEX', key, position))
    redis.call('LTRIM', key, 0, position)
    local so_far = before
    for _, entry in ipairs(taken) do
        entry[2], so_far = entry[2] - so_far, entry[2]
    end
    return taken, before
end

-- Makes what was counted as `removed` at one time count as `added` at another one, between that and now.
local function move_in_pace_log(pace, name, from, removed, to, added)
    local key, first = pace_log_key(pace, name), pace_slot(name, from)
    local last = pace_slot(name, math.min(pace.now, math.max(from, to)))
    if (first == last and removed == added) or (removed == 0 and added == 0) then
        return
    end
    local taken, so_far = cut_pace_log(key, first)
    local has_left = added == removed
    for _, entry in ipairs(taken) do
        has_left = has_left and entry[1] ~= first
    end
    -- A request that is no longer where it was counted, because the clock was set back, is not counted once more.
    added = has_left and 0 or added
    local kept, is_added = {}, added == 0
    local function keep(at, amount)
        if amount > 0 then
            so_far = so_far + amount
            kept[#kept + 1] = format_pace_entry(at, so_far)
        end
    end
    for _, entry in ipairs(taken) do
        local at, amount = entry[1], entry[2]
        if not is_added and at > last then
            keep(last, added)
            is_added = true
        end
        if at == first then
            amount = amount - math.min(amount, removed)
        end
        if not is_added and at == last then
            amount, is_added = amount + added, true
        end
        keep(at, amount)
    end
    if not is_added then
        keep(last, added)
    end
    if #kept > 0 then
        redis.call('RPUSH', key, unpack(kept))
    end
    keep_pace_log(pace, name)
end

-- Settles what count_pace has counted for a request that is over: it was sent so many seconds ago (negative: never, then it was
-- none), and used so many tokens.
local function settle_pace(pace, counted, sent_ago, tokens)
    local at, rpm, tpm, rpd = counted:match('^(%d+) (%d+) (%d+) (%d+)$')
    local was_sent = sent_ago >= 0
    at = math.min(tonumber(at), pace.now)
    for name, amount in pairs({rpm = tonumber(rpm), rpd = tonumber(rpd)}) do
        move_in_pace_log(pace, name, at, amount, pace.now - sent_ago * 1000, was_sent and amount or 0)
    end
    move_in_pace_log(pace, 'tpm', at, tonumber(tpm), pace.now, pace.limits.tpm > 0 and tokens or 0)
    local fields = {}
    if pace.gap > 0 and was_sent then
        fields = {'last', pace.now}
    end
    if pace.limits.tpm > 0 and tokens > 0 then
        local mean = tonumber(redis.call('HGET', pace.base, 'mean') or tokens)
        fields[#fields + 1] = 'mean'
        fields[#fields + 1] = mean + PACE_MEAN_WEIGHT * (tokens - mean)
    end
    if #fields > 0 then
        redis.call('HSET', pace.base, unpack(fields))
        redis.call('PEXPIRE', pace.base, PACE_TTL_MS)
    end
end
