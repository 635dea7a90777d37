-- Records until when a credential rests for a model, unless the limits of its pool are counted per account and the rest of the
-- account is recorded elsewhere.
-- KEYS: models for which the credential rests, what the pool's limits are counted per, models of the pool for which credentials
--       rest
-- ARGV: model, until (seconds since the epoch), now, FARM_ACCOUNT_LIMITS, 1 when a trial was refused (begin_trial.lua), 1 when
--       the credential was refused for the model, 1 to record it whatever the limits are counted per; contradictions that
--       reverse the verdict `model`, seconds after a confirmation in which there are none, seconds until the next trial (first,
--       at most), lifetime of a verdict in seconds
-- Result: what the limits are counted per: `model`, `account`, or '' while that is not known
local rests, verdicts, resting = KEYS[1], KEYS[2], KEYS[3]
local model, rests_until, now = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])

local function rests_for_another()
    local fields = redis.call('HGETALL', rests)
    for i = 1, #fields, 2 do
        if fields[i] ~= model and tonumber(fields[i + 1]) > now then
            return true
        end
    end
    return false
end

local function decide_per_account()
    local failures = redis.call('HINCRBY', verdicts, 'failures', 1)
    local pause = math.min(tonumber(ARGV[11]), tonumber(ARGV[10]) * 2 ^ math.min(failures - 1, 16))
    redis.call('HSET', verdicts, 'counts', 'account', 'retry_at', now + pause, 'contradictions', 0)
    redis.call('EXPIRE', verdicts, ARGV[12])
    return 'account'
end

local function find_verdict()
    if ARGV[4] ~= 'auto' then
        return ARGV[4]
    elseif ARGV[5] == '1' then
        return decide_per_account()
    end
    local fields = redis.call('HMGET', verdicts, 'counts', 'confirmed_at')
    local verdict, confirmed_at = fields[1] or '', tonumber(fields[2] or nil) or 0
    if verdict == 'model' and ARGV[6] == '1' and now - confirmed_at > tonumber(ARGV[9]) and rests_for_another()
        and redis.call('HINCRBY', verdicts, 'contradictions', 1) >= tonumber(ARGV[8]) then
        return decide_per_account()
    end
    return verdict
end

local verdict = find_verdict()
if verdict == 'model' or ARGV[7] == '1' then
    rests_until = math.max(rests_until, tonumber(redis.call('HGET', rests, model) or nil) or 0)
    redis.call('HSET', rests, model, rests_until)
    local latest = rests_until
    for _, other in ipairs(redis.call('HVALS', rests)) do
        latest = math.max(latest, tonumber(other))
    end
    redis.call('EXPIREAT', rests, math.ceil(latest) + 60)
    redis.call('ZADD', resting, 'GT', rests_until, model)
end
return verdict
