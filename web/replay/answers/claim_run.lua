-- Looks for a kept answer to a request, or for a run of it in any front; if there is neither, claims the run.
-- Idempotent: a claim that is repeated is confirmed. Comes after kept_answers.lua.
-- KEYS: the fronts
-- ARGV: front, run, lifetime of a claim (milliseconds), prefix of the keys that mark fronts that have died, then for each
--       of the request's names: name, print ('' for any), whether what is kept or running may be used, whether later
--       requests may join this run by the name (1 or 0), for how long an answer must still be kept, and how old it may be,
--       '' for any age (both in milliseconds)
-- Result: {'claimed'}, {'reused'} when a name stands for another request, {'running', number of the name from 0, front,
--         run}, or {'kept', number of the name, number of pieces, and the piece if it is the only one}
local front, run, ttl, gone = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local FIRST, STEP = 5, 6

local function is_other(print, kept)
    return print ~= '' and kept ~= print
end

-- Their mark outlasts the entry of those that have died, but not long claims; those that have ended have neither.
local function lives(front)
    return redis.call('EXISTS', gone .. front) == 0 and redis.call('ZSCORE', KEYS[1], front)
end

for i = FIRST, #ARGV, STEP do
    local name, print = ARGV[i], ARGV[i + 1]
    local claim = redis.call('HMGET', run_key(name), 'front', 'run', 'print')
    local is_claimed = claim[1] and lives(claim[1])
    local kept = redis.call('LINDEX', answer_key(name), 0)
    if (kept and is_other(print, kept)) or (is_claimed and is_other(print, claim[3])) then
        return {'reused'}
    end
end
-- Whether what is kept may be used.
local function is_fresh(name, min_left, max_age)
    local kept_at = max_age and tonumber(redis.call('LINDEX', answer_key(name), 0) or '')
    local is_young = not max_age or (kept_at and read_milliseconds() - kept_at <= max_age)
    return is_young and redis.call('PTTL', answer_key(name)) >= min_left
end

for i = FIRST, #ARGV, STEP do
    local name, may_use, number = ARGV[i], ARGV[i + 2] == '1', (i - FIRST) / STEP
    local may_be_given = may_use and is_fresh(name, tonumber(ARGV[i + 4]), tonumber(ARGV[i + 5]))
    local count = may_be_given and redis.call('LLEN', answer_key(name)) - 1 or 0
    if count > 0 then
        redis.call('ZADD', USED, 'XX', read_milliseconds(), name)
        return {'kept', number, count, count == 1 and redis.call('LINDEX', answer_key(name), 1) or nil}
    end
    local claim = may_use and redis.call('HMGET', run_key(name), 'front', 'run') or {}
    if claim[1] and claim[2] ~= run and lives(claim[1]) then
        return {'running', number, claim[1], claim[2]}
    end
end
for i = FIRST, #ARGV, STEP do
    if ARGV[i + 3] == '1' then
        redis.call('HSET', run_key(ARGV[i]), 'front', front, 'run', run, 'print', ARGV[i + 1])
        redis.call('PEXPIRE', run_key(ARGV[i]), ttl)
    end
end
return {'claimed'}
