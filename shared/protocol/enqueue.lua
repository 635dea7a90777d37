-- Admits a relay request: stores its body and its RQ job and queues the job, unless the queue is full or the API key
-- has reached a limit and holds as many requests as it may (held_requests.lua). A full queue still admits a key that has
-- less than its even share of it waiting; bodies are bounded by bodies.lua.
-- Stands for rq.Queue.enqueue_job (RQ 3.0), which takes two round trips and has no bound.
-- Idempotent: nothing changes if the job exists. Comes after limits.lua, fair.lua, bodies.lua and held_requests.lua.
-- KEYS: RQ queue of the interactive band, of the batch band, RQ's set of queues, job hash, the pool's fair queue, its idle
--       workers, upload (upload.lua)
-- ARGV: most jobs that may wait in a queue, most bytes of bodies, job id, TTL of the body (milliseconds), body, now (seconds), when the
--       request is over at the latest (seconds), demand on the key's limits (JSON; '' for a key without limits), prefix
--       of job hashes, band, API key id, its weight, seconds for which the request may wait, bytes of the upload (0: the
--       body is an argument), then the job's fields and values
-- Result: {'' or the reason for the refusal ('queue', 'bytes', 'upload' for an incomplete one, or a limit), jobs waiting in the pool, requests ahead,
--         whose those are (describe_ahead; also the job's `farm_ahead`, absent for none), seconds until a refused request can
--         succeed or a held one should check again (0 if it is not held), and for a key with
--         limits: requests in the last minute, seconds until they leave the window, tokens in it, seconds until they
--         leave the window}
local pool = {base = KEYS[5], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[6], jobs = ARGV[9]}
local max_waiting, max_bytes, job, body = tonumber(ARGV[1]), tonumber(ARGV[2]), ARGV[3], ARGV[5]
local now, band, key = tonumber(ARGV[6]), ARGV[10], ARGV[11]
local uploaded = tonumber(ARGV[14])
local size = uploaded > 0 and uploaded or #body
local counted = is_counted(size, max_waiting, max_bytes)
local demand = ARGV[8] ~= '' and cjson.decode(ARGV[8]) or nil

local function result(reason, ahead, wait, window, whose)
    if uploaded > 0 then
        redis.call('DEL', KEYS[7])
    end
    local waiting = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2])
    local values = {reason, waiting, ahead, whose or '', tostring(wait)}
    for _, number in ipairs(window) do
        values[#values + 1] = tostring(number)
    end
    return values
end

-- Keeps with the job whose requests are ahead of it, for the request log; returns it.
local function note_ahead(ahead, counts)
    if ahead == 0 then
        return ''
    end
    local whose = describe_ahead(counts, ahead)
    redis.call('HSET', KEYS[4], 'farm_ahead', whose)
    return whose
end

local function is_queue_full()
    local aside, own_aside, keys_aside = count_aside(pool, band, key)
    if redis.call('LLEN', pool[band]) + (band == INTERACTIVE and aside or 0) < max_waiting then
        return false
    end
    local keys_waiting = math.max(keys_aside, redis.call('ZCARD', band_tags(pool, band)))
    local own = redis.call('LLEN', key_queue(pool, band, key)) + own_aside
    return own >= max_waiting / (own == 0 and keys_waiting + 1 or keys_waiting)
end

local function read_field(name)
    for i = 15, #ARGV, 2 do
        if ARGV[i] == name then
            return ARGV[i + 1]
        end
    end
    return nil
end

local limit_now = demand and read_limit_clock(demand)
local found = redis.call('EXISTS', KEYS[4], resting_key(pool))
if found > 0 and redis.call('EXISTS', KEYS[4]) == 1 then
    return result('', 0, demand and next_recheck(key, job, limit_now) or 0, {})
end
if found > 0 then
    load_models(pool, now)
end
if uploaded > 0 and redis.call('STRLEN', KEYS[7]) ~= uploaded then
    return result('upload', 0, 0, {})
end
local reason, wait, window, is_held = '', 0, {}, false
if demand then
    demand.model = pool.models and read_field('farm_model')
    reason, wait, window, is_held = check_limits(pool, band, demand, limit_now, tonumber(ARGV[13]))
end
-- The bound on a pool's queue does not bound held requests.
counted = counted or is_held
if reason == '' and is_queue_full() then
    reason = 'queue'
elseif reason == '' and counted and not has_room_for_body(key, size, max_bytes, now, pool.jobs) then
    reason = 'bytes'
end
if reason ~= '' then
    return result(reason, 0, wait, window)
end
if demand then
    reserve(demand, job, tonumber(ARGV[7]), is_held and 0 or math.floor(limit_now))
end
store_body(job, body, ARGV[4], uploaded > 0 and KEYS[7] or nil)
if counted then
    count_body(job, key, size)
end
redis.call('HSET', KEYS[4], unpack(ARGV, 15))
redis.call('SADD', KEYS[3], pool[band])
if is_held then
    redis.call('HSET', pool.base, 'weight:' .. key, ARGV[12])
    hold(pool, band, key, job, false, limit_now)
    local ahead = count_ahead_in_key(pool, band, key)
    return result('', ahead, next_recheck(key, job, limit_now), window, note_ahead(ahead, {[key] = ahead}))
elseif demand then
    count_in_window(limit_keys(key), demand, demand.tokens, limit_now, window)
end
local length = join_queue(pool, band, key, job, ARGV[12])
push_to_rq(pool, band, job, now, 'RPUSH')
local ahead, counts = estimate_ahead(pool, band, key, length)
local aside = count_aside_before(pool, band, key, job)
if aside > 0 then
    ahead, counts[key] = ahead + aside, (counts[key] or 0) + aside
end
return result('', ahead, 0, window, note_ahead(ahead, counts))
