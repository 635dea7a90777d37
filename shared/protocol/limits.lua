-- Rate limits, concurrency limits and quotas of API keys: functions for the scripts that admit and end requests.
-- Times are in seconds. Redis keys of each API key (see shared/keys.py):
--   requests  list: admission times within the last minute, oldest first
--   tokens    hash: second -> tokens counted in it, for the last minute
--   running   sorted set: request id -> time by which the request is over at the latest
--   reserved  hash: request id -> `tokens:second:period` reserved at admission
--   looked    string: marks that every running request's job has just been looked up
--   quota     hash: period, since (when it began, by the clock of Redis), tokens, reserved, requests
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
        reserved = 'farm:limit:reserved:' .. id,
        looked = 'farm:limit:looked:' .. id,
        quota = 'farm:quota:' .. id,
    }
end

-- Seconds by the clock of Redis, because those of the fronts differ; tests choose the time with `demand.now`.
local function read_limit_clock(demand)
    local time = redis.call('TIME')
    return tonumber(demand.now) or tonumber(time[1]) + tonumber(time[2]) / 1e6
end

-- Returns the requests in the window, seconds until another fits, and seconds until the window is empty.
local function count_recent_requests(list, now, max)
    local first = redis.call('LINDEX', list, 0)
    while first and tonumber(first) <= now - WINDOW_SECONDS do
        redis.call('LPOP', list)
        first = redis.call('LINDEX', list, 0)
    end
    local used = redis.call('LLEN', list)
    if used == 0 then
        return 0, 0, 0
    end
    local wait = 0
    if used >= max then
        wait = redis.call('LINDEX', list, used - max) + WINDOW_SECONDS - now
    end
    return used, wait, redis.call('LINDEX', list, -1) + WINDOW_SECONDS - now
end

-- Returns the tokens in the window, seconds until `wanted` more fit, and seconds until the window is empty.
local function count_recent_tokens(hash, now, max, wanted)
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
    if used == 0 then
        return 0, 0, 0
    end
    table.sort(buckets, function(a, b) return a[1] < b[1] end)
    local wait, left = 0, used
    for _, bucket in ipairs(buckets) do
        if left + math.min(wanted, max) <= max then
            break
        end
        left, wait = left - bucket[2], bucket[1] + 1 + WINDOW_SECONDS - now
    end
    return used, wait, last + 1 + WINDOW_SECONDS - now
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
    local reserved, second, period = reservation:match('(%d+):(%d+):(.*)')
    redis.call('HINCRBY', names.quota, 'reserved', -reserved)
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

-- Seconds until tokens fit into the window; soon when they would but for what running requests have reserved.
local function shorten_token_wait(names, demand, used, wait)
    local reserved = tonumber(redis.call('HGET', names.quota, 'reserved') or 0)
    if used - reserved + math.min(demand.tokens, demand.tpm) <= demand.tpm then
        return math.min(wait, RESERVED_WAIT_SECONDS)
    end
    return wait
end

-- Checks whether a request may be admitted. `demand` is the key's limits and the tokens to reserve, as encoded by
-- shared/api_keys/limits.py.
-- Returns '' or the limit reached, seconds until a retry can succeed (0 if unknown), and {requests, seconds until they
-- leave the window, tokens, seconds until they leave the window}.
local function check_limits(demand, now, job_prefix)
    local names = limit_keys(demand.key)
    local requests, wait_requests, reset_requests = 0, 0, 0
    local tokens, wait_tokens, reset_tokens = 0, 0, 0
    if demand.rpm > 0 then
        requests, wait_requests, reset_requests = count_recent_requests(names.requests, now, demand.rpm)
    end
    if demand.tpm > 0 then
        tokens, wait_tokens, reset_tokens = count_recent_tokens(names.tokens, now, demand.tpm, demand.tokens)
    end
    local window = {requests, reset_requests, tokens, reset_tokens}
    local running = count_running(demand.key, now, false, job_prefix)
    -- Looking up every job is expensive, so it is done only before a refusal.
    if demand.concurrency > 0 and running >= demand.concurrency
        and count_running(demand.key, now, true, job_prefix) >= demand.concurrency then
        return 'concurrency', 0, window
    end
    if wait_requests > 0 then
        return 'requests', wait_requests, window
    elseif wait_tokens > 0 then
        return 'tokens', shorten_token_wait(names, demand, tokens, wait_tokens), window
    end
    local exhausted = find_exhausted_quota(names, demand)
    if exhausted == 'reserved' then
        count_running(demand.key, now, true, job_prefix)
        exhausted = find_exhausted_quota(names, demand)
    end
    return exhausted, exhausted == 'reserved' and RESERVED_WAIT_SECONDS or 0, window
end

-- Counts an admitted request of the key and reserves its tokens. Returns the `window` of `check_limits`, updated.
local function reserve(demand, request, now, expires_at, window)
    local names = limit_keys(demand.key)
    if demand.rpm > 0 then
        redis.call('RPUSH', names.requests, now)
        redis.call('EXPIRE', names.requests, WINDOW_SECONDS + 1)
        window[1], window[2] = window[1] + 1, WINDOW_SECONDS
    end
    local second = math.floor(now)
    if demand.tpm > 0 then
        redis.call('HINCRBY', names.tokens, second, demand.tokens)
        redis.call('EXPIRE', names.tokens, WINDOW_SECONDS + 2)
        window[3], window[4] = window[3] + demand.tokens, WINDOW_SECONDS + 1
    end
    redis.call('ZADD', names.running, expires_at, request)
    -- Starts the quota's period if it is new.
    read_quota(names, demand.period)
    redis.call('HSET', names.reserved, request, string.format('%d:%d:%s', demand.tokens, second, demand.period))
    redis.call('HINCRBY', names.quota, 'reserved', demand.tokens)
    redis.call('HINCRBY', names.quota, 'requests', 1)
    return window
end
