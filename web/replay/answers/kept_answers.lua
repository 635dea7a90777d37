-- Functions for the scripts that keep answers: what is kept, in how many bytes, and what goes first.
-- An answer is a list: its print (web/replay/identity.py), or, without one, when it was kept (milliseconds since the epoch);
-- then its sealed pieces. Three keys say what all of them come to:
-- `farm:answers:used` (when each was last used), `farm:answers:ends` (when each expires), and the hash
-- `farm:answers:sizes` (bytes of each, and `total`, which no name is called). So many bytes does Redis need for an answer beside
-- its pieces, as measured: most translations have fewer.
local ENTRY_BYTES = 430
local USED, ENDS, SIZES, TOTAL = 'farm:answers:used', 'farm:answers:ends', 'farm:answers:sizes', 'total'
-- Expired answers that one call takes off the books; the rest are left to the next.
local MAX_EXPIRED = 100

local function read_milliseconds()
    local time = redis.call('TIME')
    return time[1] * 1000 + math.floor(time[2] / 1000)
end

local function answer_key(name)
    return 'farm:answer:' .. name
end

local function run_key(name)
    return 'farm:run:' .. name
end

-- Returns the bytes that are kept without it.
local function drop_answer(name)
    local size = tonumber(redis.call('HGET', SIZES, name) or 0)
    redis.call('DEL', answer_key(name))
    redis.call('HDEL', SIZES, name)
    redis.call('ZREM', USED, name)
    redis.call('ZREM', ENDS, name)
    return redis.call('HINCRBY', SIZES, TOTAL, 0 - size)
end

local function drop_expired(now)
    for _, name in ipairs(redis.call('ZRANGEBYSCORE', ENDS, '-inf', now, 'LIMIT', 0, MAX_EXPIRED)) do
        drop_answer(name)
    end
end
