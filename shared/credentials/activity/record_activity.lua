-- Adds what credentials have done since the last call to what is known of them; drops the slots that count no more.
-- KEYS: for each credential its record and its activity
-- ARGV: start of the oldest slot that counts, then for each credential an array as JSON: fields and their values by turns;
--       then one of slots: start, served, failed, buckets and first bytes by turns
-- A credential that has been removed meanwhile gets no activity. Not idempotent: a repeated call counts twice.
local oldest = tonumber(ARGV[1])

local function add_to_slot(activity, gain)
    local start = string.format('%d', gain[1])
    local stored = redis.call('HGET', activity, start)
    local counts = stored and cjson.decode(stored) or {served = 0, failed = 0, first_bytes = {}}
    counts.served, counts.failed = counts.served + gain[2], counts.failed + gain[3]
    for i = 4, #gain, 2 do
        local bucket = string.format('%d', gain[i])
        counts.first_bytes[bucket] = (counts.first_bytes[bucket] or 0) + gain[i + 1]
    end
    redis.call('HSET', activity, start, cjson.encode(counts))
end

local function drop_old_slots(activity)
    for _, name in ipairs(redis.call('HKEYS', activity)) do
        local start = tonumber(name)
        if start and start < oldest then
            redis.call('HDEL', activity, name)
        end
    end
end

for i = 1, #KEYS, 2 do
    if redis.call('EXISTS', KEYS[i]) == 1 then
        local activity, fields, slots = KEYS[i + 1], cjson.decode(ARGV[i + 1]), cjson.decode(ARGV[i + 2])
        if #fields > 0 then
            redis.call('HSET', activity, unpack(fields))
        end
        for _, gain in ipairs(slots) do
            add_to_slot(activity, gain)
        end
        if #slots > 0 then
            drop_old_slots(activity)
        end
    end
end
