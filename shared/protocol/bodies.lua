-- The bodies of requests in Redis, of all pools, and their sizes: functions for the scripts that
-- admit, start and end requests.
-- Redis keys (see shared/keys.py):
--   sizes  hash: request id -> `<bytes>:<API key id>`
--   sums   hash: `total`; `key:<API key id>` -> bytes; `checked` -> when the sums were last corrected
local BODY_SIZES, BODY_SUMS, BODY_PREFIX = 'farm:body-sizes', 'farm:body-sums', 'farm:body:'
-- Seconds between two corrections of the sums.
local CORRECTION_SECONDS = 1

local function add_body_bytes(key, bytes)
    redis.call('HINCRBY', BODY_SUMS, 'total', bytes)
    if redis.call('HINCRBY', BODY_SUMS, 'key:' .. key, bytes) <= 0 then
        redis.call('HDEL', BODY_SUMS, 'key:' .. key)
    end
end

-- Small bodies are not counted, which would cost more than they do: a full queue of them holds less than a quarter of
-- the room.
local function is_counted(size, max_waiting, max_bytes)
    return 4 * size * max_waiting >= max_bytes
end

-- With an upload (upload.lua) that becomes the body, and no byte is copied.
local function store_body(job, body, ttl, upload)
    local name = BODY_PREFIX .. job
    if upload then
        redis.call('RENAME', upload, name)
        redis.call('PEXPIRE', name, ttl)
    else
        redis.call('SET', name, body, 'PX', ttl)
    end
end

local function count_body(job, key, size)
    redis.call('HSET', BODY_SIZES, job, size .. ':' .. key)
    add_body_bytes(key, size)
end

-- Idempotent.
local function delete_body(job)
    redis.call('DEL', BODY_PREFIX .. job)
    local held = redis.call('HGET', BODY_SIZES, job)
    if held then
        local bytes, key = held:match('(%d+):(.*)')
        redis.call('HDEL', BODY_SIZES, job)
        add_body_bytes(key, 0 - bytes)
    end
end

-- Deletes bodies whose job is gone, and adds up those that are left: jobs may be deleted from outside, bodies may expire.
local function correct_body_sums(now, job_prefix)
    local checked = tonumber(redis.call('HGET', BODY_SUMS, 'checked') or nil)
    if checked and checked <= now and now < checked + CORRECTION_SECONDS then
        return
    end
    local sizes, sums = redis.call('HGETALL', BODY_SIZES), {}
    redis.call('DEL', BODY_SUMS)
    for i = 1, #sizes, 2 do
        local job = sizes[i]
        if redis.call('EXISTS', BODY_PREFIX .. job) == 1 and redis.call('EXISTS', job_prefix .. job) == 1 then
            local bytes, key = sizes[i + 1]:match('(%d+):(.*)')
            add_body_bytes(key, bytes)
        else
            redis.call('DEL', BODY_PREFIX .. job)
            redis.call('HDEL', BODY_SIZES, job)
        end
    end
    redis.call('HSET', BODY_SUMS, 'checked', now)
end

-- Whether a body of the key fits: a key may hold as much as is left free for all. So one key alone gets half of the
-- room, two get a third each, and there is always room for one more (dynamic threshold, Choudhury and Hahne 1998).
local function fits(key, bytes, max)
    local sums = redis.call('HMGET', BODY_SUMS, 'total', 'key:' .. key)
    return tonumber(sums[2] or 0) + bytes <= max - tonumber(sums[1] or 0)
end

local function has_room_for_body(key, bytes, max, now, job_prefix)
    if fits(key, bytes, max) then
        return true
    end
    -- Looking at every body is expensive, so it is done only before a refusal.
    correct_body_sums(now, job_prefix)
    return fits(key, bytes, max)
end
