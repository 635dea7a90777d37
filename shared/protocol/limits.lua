-- What an API key may use: functions for the scripts that admit requests and that end them. Times are seconds.
-- Of each key there are, named as in shared/keys.py: the times of the requests of the last minute (list, oldest first),
-- the tokens of each second of it (hash), its requests that have not ended (sorted set: id, when it is over at the
-- latest) with what was reserved for each (hash: id, `tokens:second:period`), and what its quota has been used for (hash:
-- period, tokens, reserved, requests).
local WINDOW_SECONDS = 60

local function limit_keys(id)
    return {
        requests = 'farm:limit:requests:' .. id,
        tokens = 'farm:limit:tokens:' .. id,
        running = 'farm:limit:running:' .. id,
        reserved = 'farm:limit:reserved:' .. id,
        quota = 'farm:quota:' .. id,
    }
end

-- Requests of the last minute; seconds until there is room for one more, and until the window is empty.
local function count_recent_requests(list, now, most)
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
    if used >= most then
        wait = redis.call('LINDEX', list, used - most) + WINDOW_SECONDS - now
    end
    return used, wait, redis.call('LINDEX', list, -1) + WINDOW_SECONDS - now
end

-- Tokens of the last minute, counted by the second; seconds until there is room for so many more, and until none is left.
local function count_recent_tokens(hash, now, most, wanted)
    local found, used, seconds, last = redis.call('HGETALL', hash), 0, {}, 0
    for i = 1, #found, 2 do
        local second, tokens = tonumber(found[i]), tonumber(found[i + 1])
        if second <= now - WINDOW_SECONDS - 1 then
            redis.call('HDEL', hash, found[i])
        elseif tokens > 0 then
            used, last = used + tokens, math.max(last, second)
            seconds[#seconds + 1] = {second, tokens}
        end
    end
    if used == 0 then
        return 0, 0, 0
    end
    table.sort(seconds, function(a, b) return a[1] < b[1] end)
    local wait, left = 0, used
    for _, one in ipairs(seconds) do
        if left + math.min(wanted, most) <= most then
            break
        end
        left, wait = left - one[2], one[1] + 1 + WINDOW_SECONDS - now
    end
    return used, wait, last + 1 + WINDOW_SECONDS - now
end

-- Takes a request out of those that run; what was reserved for it, and the second and the period in which it was
-- admitted. Nil when it was taken out before.
local function release_reservation(names, request)
    local kept = redis.call('HGET', names.reserved, request)
    if not kept then
        return nil
    end
    redis.call('HDEL', names.reserved, request)
    redis.call('ZREM', names.running, request)
    local reserved, second, period = kept:match('(%d+):(%d+):(.*)')
    redis.call('HINCRBY', names.quota, 'reserved', -reserved)
    return tonumber(reserved), second, period
end

-- Notes that a request of the key has ended, and what it has used in place of what was reserved for it.
-- One that was not `served` has cost nothing: it counts for the quota no more.
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

-- Requests that have not ended, without those that are over by the clock; with `look`, without those whose job is gone.
local function count_running(id, now, look, job_prefix)
    local names = limit_keys(id)
    for _, request in ipairs(redis.call('ZRANGEBYSCORE', names.running, '-inf', now)) do
        settle_usage(id, request, 0, false)
    end
    if look then
        for _, request in ipairs(redis.call('ZRANGE', names.running, 0, -1)) do
            if redis.call('EXISTS', job_prefix .. request) == 0 then
                settle_usage(id, request, 0, false)
            end
        end
    end
    return redis.call('ZCARD', names.running)
end

-- What the quota has been used for in this period: tokens with those that are reserved, and requests.
local function read_quota(names, period)
    local found = redis.call('HMGET', names.quota, 'period', 'tokens', 'reserved', 'requests')
    local reserved = tonumber(found[3] or 0)
    if found[1] ~= period then
        redis.call('HSET', names.quota, 'period', period, 'tokens', 0, 'requests', 0)
        return reserved, 0
    end
    return tonumber(found[2] or 0) + reserved, tonumber(found[4] or 0)
end

-- Whether a request may be admitted: '' or what stands against it, and seconds until it may be tried again.
-- `want`: what the key may use and what the request reserves, as shared/api_keys/limits.py writes it.
-- Third: requests and tokens of the last minute and seconds until each is forgotten.
local function check_limits(want, now, job_prefix)
    local names = limit_keys(want.key)
    local requests, wait_requests, reset_requests = 0, 0, 0
    local tokens, wait_tokens, reset_tokens = 0, 0, 0
    if want.rpm > 0 then
        requests, wait_requests, reset_requests = count_recent_requests(names.requests, now, want.rpm)
    end
    if want.tpm > 0 then
        tokens, wait_tokens, reset_tokens = count_recent_tokens(names.tokens, now, want.tpm, want.tokens)
    end
    local state = {requests, reset_requests, tokens, reset_tokens}
    local at_once = count_running(want.key, now, false, job_prefix)
    if want.concurrency > 0 and at_once >= want.concurrency
        and count_running(want.key, now, true, job_prefix) >= want.concurrency then
        return 'concurrency', 0, state
    end
    if wait_requests > 0 then
        return 'requests', wait_requests, state
    elseif wait_tokens > 0 then
        return 'tokens', wait_tokens, state
    end
    if want.quota_tokens > 0 or want.quota_requests > 0 then
        local used, served = read_quota(names, want.period)
        local token_quota = want.quota_tokens > 0 and used >= want.quota_tokens
        if token_quota or (want.quota_requests > 0 and served >= want.quota_requests) then
            count_running(want.key, now, true, job_prefix)
            used, served = read_quota(names, want.period)
            if want.quota_tokens > 0 and used >= want.quota_tokens then
                return 'quota_tokens', 0, state
            elseif want.quota_requests > 0 and served >= want.quota_requests then
                return 'quota_requests', 0, state
            end
        end
    end
    return '', 0, state
end

-- Notes that a request of the key is admitted; the state of `stands_against` with it.
local function reserve(want, request, now, over_at, state)
    local names = limit_keys(want.key)
    if want.rpm > 0 then
        redis.call('RPUSH', names.requests, now)
        redis.call('EXPIRE', names.requests, WINDOW_SECONDS + 1)
        state[1], state[2] = state[1] + 1, WINDOW_SECONDS
    end
    local second = math.floor(now)
    if want.tpm > 0 then
        redis.call('HINCRBY', names.tokens, second, want.tokens)
        redis.call('EXPIRE', names.tokens, WINDOW_SECONDS + 2)
        state[3], state[4] = state[3] + want.tokens, WINDOW_SECONDS + 1
    end
    redis.call('ZADD', names.running, over_at, request)
    read_quota(names, want.period)
    redis.call('HSET', names.reserved, request, string.format('%d:%d:%s', want.tokens, second, want.period))
    redis.call('HINCRBY', names.quota, 'reserved', want.tokens)
    redis.call('HINCRBY', names.quota, 'requests', 1)
    return state
end
