-- Rests of an account by its own limits, as the state of its credential; and what a job's end means for them.
-- Comes after retries.lua, whose `pool` has one more field: `histories`, the prefix of histories. Comes after pace.lua.
-- Reason of such a rest; the limit follows.
local LIMIT_REACHED = 'limit_reached: '
-- Shorter rests are not published as a state, and still shorter ones than the second are not recorded in the history: an account
-- at its limit rests before each request.
local MIN_PUBLISHED_REST_MS, MIN_RECORDED_REST_MS = 2000, 60000
local RECORDED = 'recorded'

local function set_published_state(pool, pace, credential, state, reason, cooling_until, is_recorded)
    redis.call('HSET', pool.credentials, credential, state)
    redis.call('HSET', pool.records .. credential, 'reason', reason, 'until', cooling_until, 'evidence', '',
        'retry_after', '', 'state_since', string.format('%.3f', pace.now / 1000))
    if is_recorded then
        redis.call('XADD', pool.histories .. credential, 'MAXLEN', '~', 100, '*', 'state', state, 'reason', reason,
            'evidence', '')
    end
end

local function is_own_limit(reason)
    return (reason or ''):sub(1, #LIMIT_REACHED) == LIMIT_REACHED
end

-- Publishes a rest until then (ms), unless the credential is out of service for another reason, or cools down for longer.
local function publish_rest(pool, pace, credential, rest_until, limit)
    if rest_until - pace.now < MIN_PUBLISHED_REST_MS then
        return
    end
    local state = redis.call('HGET', pool.credentials, credential)
    local reason, cooling_until = LIMIT_REACHED .. limit, string.format('%.3f', rest_until / 1000)
    if state == 'active' then
        local is_recorded = rest_until - pace.now >= MIN_RECORDED_REST_MS
        set_published_state(pool, pace, credential, 'cooling', reason, cooling_until, is_recorded)
        redis.call('HSET', pace.base, 'resting', is_recorded and RECORDED or 1)
        redis.call('PEXPIRE', pace.base, PACE_TTL_MS)
    elseif state == 'cooling' then
        local present = redis.call('HMGET', pool.records .. credential, 'reason', 'until')
        if is_own_limit(present[1]) or (tonumber(present[2] or nil) or 0) < rest_until / 1000 then
            redis.call('HSET', pool.records .. credential, 'reason', reason, 'until', cooling_until, 'evidence', '',
                'retry_after', '')
            redis.call('HSETNX', pace.base, 'resting', 1)
            redis.call('PEXPIRE', pace.base, PACE_TTL_MS)
        end
    end
end

-- The account may go on: ends the rest that was published.
local function end_published_rest(pool, pace, credential)
    if not pace.resting then
        return
    end
    redis.call('HDEL', pace.base, 'resting')
    if redis.call('HGET', pool.credentials, credential) == 'cooling'
        and is_own_limit(redis.call('HGET', pool.records .. credential, 'reason')) then
        set_published_state(pool, pace, credential, 'active', '', '', pace.resting == RECORDED)
    end
end

-- Settles what was counted when the execution began; to be called before its hash is deleted.
local function settle_execution_pace(pace, execution_key, sent_ago, tokens)
    local counted = redis.call('HGET', execution_key, 'farm_paced')
    if counted then
        settle_pace(pace, counted, sent_ago, tokens)
        redis.call('HDEL', execution_key, 'farm_paced')
    end
end
