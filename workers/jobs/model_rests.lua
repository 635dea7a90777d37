-- Tells workers of jobs that are set aside (model_queues.lua). Comes after retries.lua.

-- Tells one idle worker whose credential does not rest for the model to look.
local function wake_able(pool, model, now)
    local idle = redis.call('ZREVRANGEBYSCORE', pool.idle, '+inf', now - IDLE_TTL_SECONDS)
    for _, worker in ipairs(idle) do
        local credential = credential_of(worker)
        if not is_resting(credential, model, now) and redis.call('EXISTS', pool.leases .. credential) == 1 then
            redis.call('PUBLISH', 'rq:pubsub:' .. worker, '{"command":"look"}')
            return
        end
    end
end

-- Takes the job off the lists of those set aside, but for its key's queue, which pops it.
local function unlist_aside(pool, head)
    if head and head.model then
        redis.call('LREM', pool.batch, 1, head.job)
        redis.call('ZREM', aside_jobs(pool, head.band), head.job)
    end
end

-- Puts a job whose attempt was refused because its model is limited for the credential back: first of its key and model.
local function return_aside(pool, owner, job, now)
    local virtual_time = redis.call('HGET', pool.base, owner.band) or 0
    put_aside(pool, owner.band, owner.key, job, owner.model, virtual_time, true)
    wake_able(pool, owner.model, now)
end
