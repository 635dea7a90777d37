-- Reads a pool's queue as it stands, for operators; changes nothing. Comes after fair.lua, whose keys it reads.
-- KEYS: the pool's fair queue, started registry of the interactive and of the batch band
-- ARGV: keys of each band and requests of each key to read at most, prefix of RQ's keys
-- Result: {cost ('' if none was measured), turns, interactive band, batch band, interactive retries, batch retries, running}
--         a band:  {number of keys, {key, tag, end of its last request, weight, number of its requests, {job, …}}, …}
--         retries: {job, …}
--         running: {{job, started at, API key, seconds charged, band}, …}
local pool = {base = KEYS[1], jobs = ARGV[2] .. ':job:'}
local most = tonumber(ARGV[1])

local function read_band(band)
    local tags = redis.call('ZRANGE', band_tags(pool, band), 0, most - 1, 'WITHSCORES')
    local result = {redis.call('ZCARD', band_tags(pool, band))}
    for i = 1, #tags, 2 do
        local key, queue = tags[i], key_queue(pool, band, tags[i])
        local fields = redis.call('HMGET', pool.base, 'end:' .. band .. ':' .. key, 'weight:' .. key)
        result[#result + 1] = {key, tags[i + 1], fields[1] or '0', fields[2] or '1', redis.call('LLEN', queue),
            redis.call('LRANGE', queue, 0, most - 1)}
    end
    return result
end

local running = {}
for i, band in ipairs({INTERACTIVE, BATCH}) do
    for _, composite in ipairs(redis.call('ZRANGE', KEYS[i + 1], 0, -1)) do
        local job = composite:match('^(.*):')
        local started = redis.call('HGET', ARGV[2] .. ':execution:' .. composite, 'created_at')
        if job and started then
            local fields = redis.call('HMGET', pool.jobs .. job, 'farm_key', 'farm_cost')
            running[#running + 1] = {job, started, fields[1] or '', fields[2] or '', band}
        end
    end
end
local costs = redis.call('HMGET', pool.base, 'cost', 'turns')
return {costs[1] or '', costs[2] or '0', read_band(INTERACTIVE), read_band(BATCH),
    redis.call('ZRANGE', retries_key(pool, INTERACTIVE), 0, most - 1),
    redis.call('ZRANGE', retries_key(pool, BATCH), 0, most - 1), running}
