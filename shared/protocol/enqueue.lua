-- Admits one relay request: keeps its body, saves its RQ job and pushes the job's id, unless the queue is full or its key
-- has reached a limit. Stands for rq.Queue.enqueue_job (RQ 3.0), which needs two round trips and knows no bound.
-- Comes after limits.lua and fair.lua.
-- KEYS: queue of the interactive band, of batch, RQ's set of queues, job hash, body, the pool's fair queue,
--       its workers that wait
-- ARGV: most jobs that may wait in a queue, job id, milliseconds to keep the body, body, now (seconds), when the request is
--       over at the latest (seconds), what it wants of its key's limits (JSON; '' when it has none), prefix of job hashes,
--       band, API key, its weight, then the job's fields and values
-- A queue that is full is still open to a key that has less than its even part of it waiting.
-- Asked again for a job that is there, it does nothing.
-- Result: {'' or what stands against it ('queue', or a limit), jobs that wait in the pool, how many go before it,
--         seconds until it may be tried again, requests of the last minute, seconds until they are forgotten, tokens of it,
--         seconds until they are}
local pool = {base = KEYS[6], interactive = KEYS[1], batch = KEYS[2], idle = KEYS[7], jobs = ARGV[8]}
local most, now, band, key = tonumber(ARGV[1]), tonumber(ARGV[5]), ARGV[9], ARGV[10]
local want = ARGV[7] ~= '' and cjson.decode(ARGV[7]) or nil

local function result(reason, before, wait, state)
    local waiting = redis.call('LLEN', KEYS[1]) + redis.call('LLEN', KEYS[2])
    local words = {reason, waiting, before, tostring(wait)}
    for _, number in ipairs(state) do
        words[#words + 1] = tostring(number)
    end
    return words
end

local function is_queue_full()
    if redis.call('LLEN', pool[band]) < most then
        return false
    end
    local others = redis.call('ZCARD', band_tags(pool, band))
    local mine = redis.call('LLEN', key_queue(pool, band, key))
    return mine >= most / (mine == 0 and others + 1 or others)
end

if redis.call('EXISTS', KEYS[4]) == 1 then
    return result('', 0, 0, {})
end
local reason, wait, state = '', 0, {}
if want then
    reason, wait, state = check_limits(want, now, pool.jobs)
end
if reason == '' and is_queue_full() then
    reason = 'queue'
end
if reason ~= '' then
    return result(reason, 0, wait, state)
end
if want then
    state = reserve(want, ARGV[2], now, tonumber(ARGV[6]), state)
end
redis.call('SET', KEYS[5], ARGV[4], 'PX', ARGV[3])
redis.call('HSET', KEYS[4], unpack(ARGV, 12))
redis.call('SADD', KEYS[3], pool[band])
local length = join_queue(pool, band, key, ARGV[2], ARGV[11])
push_to_rq(pool, band, ARGV[2], now, 'RPUSH')
return result('', estimate_ahead(pool, band, key, length), 0, state)
