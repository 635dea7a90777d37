-- Reads when the credentials of a pool that rests as a whole come back, or of one that rests as a whole for a model.
-- KEYS: credentials of the pool, the pool's fair queue, what the pool's limits are counted per
-- ARGV: prefix of credentials' hashes, now (seconds since the epoch), reason of a refused API key's cooldown, prefix of the
--       models for which credentials rest, model ('' for none: what rests for a model only is in service)
-- Result: {} while a credential is in service or none is usable, else {average seconds per request, '' if not known;
--         1 if all are refused API keys, else 0; end of each cooldown (seconds since the epoch), …}
-- Seconds by which the end of a rest as a whole may be later than that for the model because of which it is.
local SLACK_SECONDS = 2
local states, now, model = redis.call('HGETALL', KEYS[1]), tonumber(ARGV[2]), ARGV[5]
local rest = {redis.call('HGET', KEYS[2], 'cost') or '', 1}

-- Whether a credential that rests as a whole may be tried for this model (begin_trial.lua), because another one is limited.
local function may_be_tried(credential, cooling_until)
    if model == '' then
        return false
    end
    local verdict = redis.call('HMGET', KEYS[3], 'counts', 'retry_at')
    if verdict[1] == 'account' and tonumber(verdict[2] or 0) > now then
        return false
    end
    local is_explained, rests = false, redis.call('HGETALL', ARGV[4] .. credential)
    for i = 1, #rests, 2 do
        local rests_until = tonumber(rests[i + 1])
        if rests_until > now and rests[i] == model then
            return false
        end
        is_explained = is_explained or rests_until >= cooling_until - SLACK_SECONDS
    end
    return is_explained
end

-- Until when a credential in this state rests, 0 if it is in service.
local function read_end(credential, state)
    if state == 'active' then
        rest[2] = 0
        local rests_until = model ~= '' and redis.call('HGET', ARGV[4] .. credential, model)
        return tonumber(rests_until or 0)
    end
    local fields = redis.call('HMGET', ARGV[1] .. credential, 'until', 'reason')
    if fields[2] ~= ARGV[3] then
        rest[2] = 0
    end
    local cooling_until = tonumber(fields[1] or nil) or 0
    return may_be_tried(credential, cooling_until) and 0 or cooling_until
end

for i = 1, #states, 2 do
    local state = states[i + 1]
    if state == 'active' or state == 'cooling' then
        local rests_until = read_end(states[i], state)
        if rests_until <= now then
            return {}
        end
        rest[#rest + 1] = string.format('%.6f', rests_until)
    end
end
return #rest > 2 and rest or {}
