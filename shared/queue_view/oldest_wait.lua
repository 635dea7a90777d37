-- Finds when the interactive request was admitted that has waited longest; changes nothing. Comes after fair.lua and
-- model_queues.lua, whose keys it reads.
-- KEYS: the pool's fair queue
-- ARGV: API keys to look at, at most; prefix of RQ's keys
-- Result: its admission in seconds since the epoch, '' if none waits
local pool = {base = KEYS[1], jobs = ARGV[2] .. ':job:'}
local oldest

local function look_at(at)
    at = tonumber(at or '')
    if at and (not oldest or at < oldest) then
        oldest = at
    end
end

for _, key in ipairs(redis.call('ZRANGE', band_tags(pool, INTERACTIVE), 0, tonumber(ARGV[1]) - 1)) do
    local job = redis.call('LINDEX', key_queue(pool, INTERACTIVE, key), 0)
    look_at(job and redis.call('HGET', pool.jobs .. job, 'farm_at'))
end
look_at(redis.call('ZRANGE', retries_key(pool, INTERACTIVE), 0, 0, 'WITHSCORES')[2])
look_at(redis.call('ZRANGE', aside_jobs(pool, INTERACTIVE), 0, 0, 'WITHSCORES')[2])
return oldest and string.format('%.3f', oldest) or ''
