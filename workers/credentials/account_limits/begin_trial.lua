-- Decides whether a credential that rests as a whole, because a model was limited, tries another model now.
-- KEYS: models for which the credential rests, what the pool's limits are counted per, the pool's trial, interactive queue,
--       batch queue
-- ARGV: now (seconds), FARM_ACCOUNT_LIMITS, end of the credential's rest (seconds since the epoch), who tries, lifetime of a
--       trial (milliseconds), prefix of job hashes, a random number from 0 to 1
-- Result: 'none': it doesn't rest because of a model; 'model': the limits are counted per model, so it need not rest as a whole;
--         'try': it is to take one job of another model; else the seconds until a decision may be different
local now = tonumber(ARGV[1])
-- Waiting jobs that are looked at, at each end of a queue and from one place within.
local MAX_SCANNED = 100
-- Seconds by which the end of the rest as a whole may be later than that for the model.
local SLACK_SECONDS = 2
local rests, is_explained = {}, false
local fields = redis.call('HGETALL', KEYS[1])
for i = 1, #fields, 2 do
    local rests_until = tonumber(fields[i + 1])
    rests[fields[i]] = rests_until > now
    is_explained = is_explained or (rests_until > now and rests_until >= tonumber(ARGV[3]) - SLACK_SECONDS)
end
if not is_explained then
    return 'none'
end

-- Whether a job of a model for which the credential does not rest is among those.
local function has_other(queue, first, last)
    for _, job in ipairs(redis.call('LRANGE', queue, first, last)) do
        local model = redis.call('HGET', ARGV[6] .. job, 'farm_model')
        if model and not rests[model] then
            return true
        end
    end
    return false
end

local function does_other_wait(queue)
    local length = redis.call('LLEN', queue)
    local within = math.floor(tonumber(ARGV[7]) * length)
    return has_other(queue, 0, MAX_SCANNED - 1) or has_other(queue, -MAX_SCANNED, -1)
        or (length > 2 * MAX_SCANNED and has_other(queue, within, within + MAX_SCANNED - 1))
end

local verdict = redis.call('HMGET', KEYS[2], 'counts', 'retry_at')
if ARGV[2] == 'model' or verdict[1] == 'model' then
    return 'model'
elseif verdict[1] == 'account' and tonumber(verdict[2] or 0) > now then
    return tostring(tonumber(verdict[2]) - now)
elseif redis.call('EXISTS', KEYS[3]) == 0 and (does_other_wait(KEYS[4]) or does_other_wait(KEYS[5])) then
    redis.call('SET', KEYS[3], ARGV[4], 'PX', ARGV[5])
    return 'try'
end
return '0'
