-- Accounting for jobs that end or leave the queue. Comes after limits.lua, fair.lua, bodies.lua and
-- held_requests.lua.
-- Fields of a job's hash: `farm_key` (its API key's id), `farm_limited` (set if the key has limits), `farm_band`,
-- `farm_cost` (seconds charged to the key at the start), `farm_settled` (set once the job is settled),
-- `farm_lined` (where it waits).
local function read_owner(hash)
    local fields = redis.call('HMGET', hash, 'farm_key', 'farm_limited', 'farm_band', 'farm_cost', 'farm_settled',
        'farm_lined', 'farm_model')
    return {
        key = fields[1],
        limited = fields[2],
        band = fields[3] or INTERACTIVE,
        cost = tonumber(fields[4] or nil),
        settled = fields[5],
        is_held = fields[6] == HELD,
        is_aside = fields[6] == ASIDE,
        model = fields[7],
    }
end

-- Takes a withdrawn job out of its key's queue, or of its held requests, and releases its reservation; it has used nothing.
local function release_waiting_job(pool, hash, job)
    local owner = read_owner(hash)
    if owner.is_held then
        remove_held(pool, owner.band, owner.key, job)
    elseif owner.is_aside then
        remove_aside(pool, owner.band, owner.key, job, owner.model)
    elseif owner.key then
        leave_queue(pool, owner.band, owner.key, job)
    end
    if owner.limited then
        end_usage(owner.key, job, 0, false)
    end
    return owner
end

-- Corrects the key's charge to the seconds that a worker spent on the job, or on an attempt of it that has failed.
local function record_worked_time(pool, owner, seconds, has_failed)
    if owner.key and owner.cost then
        -- Negative if the clock was set back.
        local worked = math.max(0, tonumber(seconds))
        local correction = correct_charge(pool, owner.band, owner.key, owner.cost, worked, has_failed)
        shift_tags(pool, owner.band, owner.key, correction)
    end
end
