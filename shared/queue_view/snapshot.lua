-- Reads a pool's queue as it stands, for operators; changes nothing. Comes after fair.lua and
-- model_queues.lua, whose keys it reads.
-- KEYS: the pool's fair queue, started registry of the interactive and of the batch band
-- ARGV: keys of each band and requests of each key to read at most, prefix of RQ's keys
-- Result: {cost ('' if none was measured), turns, interactive band, batch band, interactive retries, batch retries, running}
--         a band:  {number of keys, {key, tag, end of its last request, weight, number of its requests, {job, …}}, …}
--         of a key that has jobs set aside those come first, as it will be served once nobody rests for their models;
--         retries: {job, …}
--         running: {{job, started at, API key, seconds charged, band}, …}
local pool = {base = KEYS[1], jobs = ARGV[2] .. ':job:'}
local most = tonumber(ARGV[1])

-- Adds the band's jobs that are set aside to the lines of their keys.
local function add_aside(band, result)
    local lines = {}
    for i = 2, #result do
        lines[result[i][1]] = result[i]
    end
    local waiting = redis.call('ZREVRANGE', aside_jobs(pool, band), 0 - most, -1)
    for _, job in ipairs(most > 0 and waiting or {}) do
        local key = redis.call('HGET', pool.jobs .. job, 'farm_key') or '-'
        if not lines[key] then
            local fields = redis.call('HMGET', pool.base, 'end:' .. band .. ':' .. key, 'weight:' .. key, band)
            lines[key] = {key, fields[3] or '0', fields[1] or '0', fields[2] or '1', 0, {}}
            result[#result + 1] = lines[key]
        end
        lines[key][5] = lines[key][5] + 1
        table.insert(lines[key][6], 1, job)
    end
    return result
end

local function read_band(band)
    local tags = redis.call('ZRANGE', band_tags(pool, band), 0, most - 1, 'WITHSCORES')
    local result = {redis.call('ZCARD', band_tags(pool, band))}
    for i = 1, #tags, 2 do
        local key, queue = tags[i], key_queue(pool, band, tags[i])
        local fields = redis.call('HMGET', pool.base, 'end:' .. band .. ':' .. key, 'weight:' .. key)
        result[#result + 1] = {key, tags[i + 1], fields[1] or '0', fields[2] or '1', redis.call('LLEN', queue),
            redis.call('LRANGE', queue, 0, most - 1)}
    end
    return add_aside(band, result)
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
