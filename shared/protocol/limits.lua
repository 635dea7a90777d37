-- Rate limits, concurrency limits and quotas of API keys: functions for the scripts that admit, start and end requests.
-- Times are in seconds. Redis keys of each API key (see shared/keys.py):
--   requests  list: times within the last minute at which requests were counted, oldest first
--   tokens    hash: second -> tokens counted in it, for the last minute
--   running   sorted set: unfinished request, held and queued ones too -> time by which it is over at the latest
--   started   set: requests that hold a slot of the concurrency limit, from their start to their end
--   reserved  hash: request id -> `tokens:second:period` reserved at admission; `second` is 0 until the request is
--             counted in the last minute
--   looked    string: marks that every running request's job has just been looked up
--   quota     hash: period, since (when it began, by the clock of Redis), tokens, reserved, requests
--   held      set: `<band>:<pool>` of the key's held requests; held:<band>:<pool> lists them (held_requests.lua)
--   limits    hash: `limits` in force, `<version>:<concurrency>:<rpm>:<tpm>`; `tokens` reserved by held requests;
--             `ended_at`, when a request last ended while others were held; `interval`, the average between two such
--             ends; `retry_at`, for when the latest refused request was told to come back
local WINDOW_SECONDS = 60
-- Seconds until a retry is worth it when the limit is reached only by what running requests have reserved.
local RESERVED_WAIT_SECONDS = 2
-- Seconds by which the clocks of fronts may differ before an earlier quota period is believed.
local MAX_CLOCK_SKEW_SECONDS = 600
-- Running requests whose jobs are looked up at any refusal; more of them once per interval (milliseconds).
local MAX_LOOKUPS, LOOKUP_INTERVAL_MS = 50, 1000

local function limit_keys(id)
    return {
        requests = 'farm:limit:requests:' .. id,
        tokens = 'farm:limit:tokens:' .. id,
        running = 'farm:limit:running:' .. id,
        started = 'farm:limit:started:' .. id,
        reserved = 'farm:limit:reserved:' .. id,
        looked = 'farm:limit:looked:' .. id,
        quota = 'farm:quota:' .. id,
        held = 'farm:limit:held:' .. id,
        limits = 'farm:limit:limits:' .. id,
    }
end

-- Seconds by the clock of Redis, because those of the fronts differ; tests choose the time with `demand.now`.
local function read_limit_clock(demand)
    local time = redis.call('TIME')
    return tonumber(demand.now) or tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- Returns the requests in the window, seconds until another one fits behind `ahead` others that wait too, and seconds
-- until the window is empty.
local function count_recent_requests(list, now, max, ahead)
    local first = redis.call('LINDEX', list, 0)
    while first and tonumber(first) <= now - WINDOW_SECONDS do
        redis.call('LPOP', list)
        first = redis.call('LINDEX', list, 0)
    end
    local used = redis.call('LLEN', list)
    -- The request that has to leave the window first, and the windows that pass before it is even in one.
    local before = used + ahead + 1 - max
    local windows = math.max(0, math.ceil((before - used) / max))
    before = before - windows * max
    local wait = windows * WINDOW_SECONDS
    if before > 0 then
        wait = wait + redis.call('LINDEX', list, before - 1) + WINDOW_SECONDS - now
    end
    return used, wait, used > 0 and redis.call('LINDEX', list, -1) + WINDOW_SECONDS - now or 0
end

-- Returns the tokens counted in the last minute, when the latest were, and {second, tokens} of each second, oldest first.
local function read_recent_tokens(hash, now)
    local fields, used, buckets, last = redis.call('HGETALL', hash), 0, {}, 0
    for i = 1, #fields, 2 do
        local second, tokens = tonumber(fields[i]), tonumber(fields[i + 1])
        if second <= now - WINDOW_SECONDS - 1 then
            redis.call('HDEL', hash, fields[i])
        elseif tokens > 0 then
            used, last = used + tokens, math.max(last, second)
            buckets[#buckets + 1] = {second, tokens}
        end
    end
    table.sort(buckets, function(a, b) return a[1] < b[1] end)
    return used, last, buckets
end

-- Returns the tokens in the window, seconds until `wanted` more fit behind `ahead` ones that wait too, and seconds until
-- the window is empty.
local function count_recent_tokens(hash, now, max, wanted, ahead)
    local used, last, buckets = read_recent_tokens(hash, now)
    local room = ahead + math.min(wanted, max)
    -- Those that wait fill whole windows first.
    local windows = math.max(0, math.ceil(room / max) - 1)
    room = room - windows * max
    local wait, left = 0, used
    for _, bucket in ipairs(buckets) do
        if left + room <= max then
            break
        end
        left, wait = left - bucket[2], bucket[1] + 1 + WINDOW_SECONDS - now
    end
    return used, wait + windows * (WINDOW_SECONDS + 1), used > 0 and last + 1 + WINDOW_SECONDS - now or 0
end

-- Removes a request from the running set. Returns its reserved tokens and the second and period of its admission, or
-- nil if it was removed before.
local function release_reservation(names, request)
    local reservation = redis.call('HGET', names.reserved, request)
    if not reservation then
        return nil
    end
    redis.call('HDEL', names.reserved, request)
    redis.call('ZREM', names.running, request)
    redis.call('SREM', names.started, request)
    local reserved, second, period = reservation:match('(%d+):(%d+):(.*)')
    redis.call('HINCRBY', names.quota, 'reserved', 0 - reserved)
    return tonumber(reserved), second, period
end

-- Ends a request of the key: replaces its reservation by the tokens it used. Idempotent.
-- A request that was not `served` does not count towards the quota of requests.
local function settle_usage(id, request, tokens, served)
    local names = limit_keys(id)
    local reserved, second, period = release_reservation(names, request)
    if not reserved then
        return
    end
    if tokens ~= reserved and redis.call('HEXISTS', names.tokens, second) == 1 then
        redis.call('HINCRBY', names.tokens, second, tokens - reserved)
    end
    if tokens > 0 then
        redis.call('HINCRBY', names.quota, 'tokens', tokens)
    end
    if not served and redis.call('HGET', names.quota, 'period') == period then
        redis.call('HINCRBY', names.quota, 'requests', -1)
    end
end

-- Counts the running requests, after settling those past their latest end and, with `check_jobs`, those whose job is
-- gone. A key with thousands of them that hammers does not make Redis look all of them up at each refusal.
local function count_running(id, now, check_jobs, job_prefix)
    local names = limit_keys(id)
    for _, request in ipairs(redis.call('ZRANGEBYSCORE', names.running, '-inf', now)) do
        settle_usage(id, request, 0, false)
    end
    if check_jobs and (redis.call('ZCARD', names.running) <= MAX_LOOKUPS
        or redis.call('SET', names.looked, 1, 'NX', 'PX', LOOKUP_INTERVAL_MS)) then
        for _, request in ipairs(redis.call('ZRANGE', names.running, 0, -1)) do
            if redis.call('EXISTS', job_prefix .. request) == 0 then
                settle_usage(id, request, 0, false)
            end
        end
    end
    return redis.call('ZCARD', names.running)
end

-- Whether a period replaces the stored one. Periods of one length sort by time, and an earlier one comes from a front
-- whose clock is behind, which must not set the quota to 0 again.
local function is_new_period(stored, period, since, now)
    if not stored or #stored ~= #period or period > stored then
        return stored ~= period
    end
    return period < stored and now - tonumber(since or 0) > MAX_CLOCK_SKEW_SECONDS
end

-- Returns the quota used in the period: tokens, reserved tokens and requests. Starts the period if it is new.
local function read_quota(names, period)
    local quota = redis.call('HMGET', names.quota, 'period', 'tokens', 'reserved', 'requests', 'since')
    local reserved, redis_now = tonumber(quota[3] or 0), tonumber(redis.call('TIME')[1])
    if is_new_period(quota[1], period, quota[5], redis_now) then
        redis.call('HSET', names.quota, 'period', period, 'tokens', 0, 'requests', 0, 'since', redis_now)
        return 0, reserved, 0
    end
    return tonumber(quota[2] or 0), reserved, tonumber(quota[4] or 0)
end

-- Returns '', or the quota that is used up: 'reserved' if only with what running requests have reserved.
local function find_exhausted_quota(names, demand)
    local tokens, reserved, requests = read_quota(names, demand.period)
    local max_tokens, max_requests = demand.quota_tokens, demand.quota_requests
    if max_tokens > 0 and tokens >= max_tokens then
        return 'quota_tokens'
    elseif max_requests > 0 and requests - redis.call('HLEN', names.reserved) >= max_requests then
        return 'quota_requests'
    end
    local is_reserved = (max_tokens > 0 and tokens + reserved >= max_tokens) or (max_requests > 0 and requests >= max_requests)
    return is_reserved and 'reserved' or ''
end

-- Checks the limits per minute for a request of so many tokens, behind others that wait: `ahead` is {requests, tokens}.
-- `limits` has `rpm` and `tpm`, 0 for none.
-- Returns '' or the limit reached, seconds until the request fits, and {requests, seconds until they leave the window,
-- tokens, seconds until they leave the window}.
local function check_rates(names, limits, tokens, now, ahead)
    local limit, wait, window = '', 0, {0, 0, 0, 0}
    if limits.rpm > 0 then
        window[1], wait, window[2] = count_recent_requests(names.requests, now, limits.rpm, ahead[1])
        limit = wait > 0 and 'requests' or ''
    end
    if limits.tpm > 0 then
        local used, token_wait, reset = count_recent_tokens(names.tokens, now, limits.tpm, tokens, ahead[2])
        window[3], window[4] = used, reset
        if token_wait > wait then
            limit, wait = limit == '' and 'tokens' or limit, token_wait
        end
    end
    return limit, wait, window
end

-- Counts a request in the last minute. `window` of `check_rates` is updated.
local function count_in_window(names, limits, tokens, now, window)
    if limits.rpm > 0 then
        redis.call('RPUSH', names.requests, now)
        redis.call('EXPIRE', names.requests, WINDOW_SECONDS + 1)
        window[1], window[2] = window[1] + 1, WINDOW_SECONDS
    end
    if limits.tpm > 0 then
        redis.call('HINCRBY', names.tokens, math.floor(now), tokens)
        redis.call('EXPIRE', names.tokens, WINDOW_SECONDS + 2)
        window[3], window[4] = window[3] + tokens, WINDOW_SECONDS + 1
    end
end

-- Reserves the tokens of an admitted request from its key's quota. `second`: when it was counted in the last minute, 0
-- if it is held.
local function reserve(demand, request, expires_at, second)
    local names = limit_keys(demand.key)
    redis.call('ZADD', names.running, expires_at, request)
    -- Starts the quota's period if it is new.
    read_quota(names, demand.period)
    redis.call('HSET', names.reserved, request, string.format('%d:%d:%s', demand.tokens, second, demand.period))
    redis.call('HINCRBY', names.quota, 'reserved', demand.tokens)
    redis.call('HINCRBY', names.quota, 'requests', 1)
end

-- Stores the limits in force, for requests that are admitted already; those of an older version of the key are ignored.
local function store_limits(names, limits)
    local stored = redis.call('HGET', names.limits, 'limits')
    local text = string.format('%d:%d:%d:%d', limits.version, limits.concurrency, limits.rpm, limits.tpm)
    if stored ~= text and (not stored or tonumber(stored:match('^%d+')) <= limits.version) then
        redis.call('HSET', names.limits, 'limits', text)
    end
end

local function read_limits(names)
    local stored = redis.call('HGET', names.limits, 'limits') or '0:0:0:0'
    local _, concurrency, rpm, tpm = stored:match('(%d+):(%d+):(%d+):(%d+)')
    return {concurrency = tonumber(concurrency), rpm = tonumber(rpm), tpm = tonumber(tpm)}
end
