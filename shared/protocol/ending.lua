-- What is settled when a job is over or leaves the queue. Comes after limits.lua and fair.lua.
-- Of a job's hash: `farm_key` (the API key it counts for), `farm_limited` (there when the key has limits), `farm_band`,
-- `farm_cost` (what the key was charged when it was started), `farm_settled` (there when all this is done).
local function read_owner(hash)
    local found = redis.call('HMGET', hash, 'farm_key', 'farm_limited', 'farm_band', 'farm_cost', 'farm_settled')
    return {
        key = found[1],
        limited = found[2],
        band = found[3] or INTERACTIVE,
        cost = tonumber(found[4] or nil),
        settled = found[5],
    }
end

-- A job that waits is withdrawn: it has cost nothing.
local function release_waiting_job(pool, hash, job)
    local whose = read_owner(hash)
    if whose.key then
        leave_queue(pool, whose.band, whose.key, job)
    end
    if whose.limited then
        settle_usage(whose.key, job, 0, false)
    end
    return whose
end

-- A worker has worked on a job for so many seconds.
local function record_worked_time(pool, whose, seconds)
    if whose.key and whose.cost then
        -- A clock that was set back gives no time.
        correct_charge(pool, whose.band, whose.key, whose.cost, math.max(0, tonumber(seconds)))
    end
end
