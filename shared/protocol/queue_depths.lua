-- Counts the waiting requests of pools by band; changes nothing. Names of keys are those of fair.lua and model_queues.lua.
-- RQ's lists alone don't tell: the batch queue also lists retries and what is set aside, of either band, and the
-- interactive one batch requests that came while a worker was idle.
-- KEYS: of each pool its interactive and its batch queue, then, each interactive first, the bands' tags, waiting retries, and
--       requests set aside
-- ARGV: API keys of a band whose queues are looked at, at most
-- Result: for each pool, {interactive, batch}
local KEYS_PER_POOL, most = 8, tonumber(ARGV[1])

-- The band's requests; nil if too many API keys have some.
local function count(tags, others)
    if redis.call('ZCARD', tags) > most then
        return nil
    end
    for _, key in ipairs(redis.call('ZRANGE', tags, 0, -1)) do
        others = others + redis.call('LLEN', tags .. ':' .. key)
    end
    return others
end

local result = {}
for first = 0, #KEYS - 1, KEYS_PER_POOL do
    local function size(command, number)
        return redis.call(command, KEYS[first + number])
    end
    local listed, in_batch_queue = size('LLEN', 1) + size('LLEN', 2), size('LLEN', 2)
    local other_interactive = size('ZCARD', 5) + size('ZCARD', 7)
    local batch = count(KEYS[first + 4], size('ZCARD', 6) + size('ZCARD', 8))
    if not batch then
        local interactive = count(KEYS[first + 3], other_interactive)
        batch = interactive and listed - interactive or in_batch_queue - other_interactive
    end
    batch = math.max(0, math.min(batch, listed))
    result[#result + 1] = {listed - batch, batch}
end
return result
