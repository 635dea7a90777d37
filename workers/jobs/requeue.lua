-- Puts a job whose attempt has failed back: it waits for a credential that has not tried it, or after a failed probe at the
-- end of its queue. Ends it if its caller has gone, which releases what it had reserved of its API key's limits.
-- If it was refused because its model is limited for the credential, it waits for one that doesn't rest for the model.
-- Runs after limits.lua, fair.lua, model_queues.lua, ending.lua, retries.lua, pace.lua, rests.lua and model_rests.lua. Stands for
-- rq.job.Job.retry (RQ 3.0). Idempotent.
-- KEYS: job, body, worker, the worker's executions, started registry, execution, the job's executions,
--       interactive queue, batch queue, the pool's fair queue, its idle workers, request log, the pool's credentials
-- ARGV: job id, execution id, seconds worked, now (ISO), now (seconds), 1 when the attempt counts, else 0,
--       prefix of job hashes, entry in the request log if its caller has gone ('' for none),
--       the attempt's entry in `farm_tried`, seconds until a credential that has tried the job may do so once more,
--       1 to leave the job alone if there are only such credentials, else 0, prefixes of leases and of credentials' hashes,
--       seconds for which a request may wait, 1 if the credential rests for the job's model now, else 0,
--       limits of the account ('' for none, pace.lua), base of its pace, seconds since its request was sent (negative if it
--       never was)
-- Result: 1 when requeued, 2 when requeued and only credentials that have tried it can take it, 3 when left alone for that
--         reason, 0 when it was ended, deleted by an operator, or requeued before
local pool = {base = KEYS[10], interactive = KEYS[8], batch = KEYS[9], idle = KEYS[11], jobs = ARGV[7],
    credentials = KEYS[13], leases = ARGV[12], records = ARGV[13], patience = tonumber(ARGV[14])}
local hash, composite, counts, now = KEYS[1], ARGV[1] .. ':' .. ARGV[2], ARGV[6] ~= '0', tonumber(ARGV[5])
local fields = redis.call('HMGET', hash, 'farm_tried', 'farm_at', 'farm_cancelled')
if redis.call('EXISTS', resting_key(pool)) == 1 then
    load_models(pool, now)
end
local tried = (fields[1] or '') .. ARGV[9]
local others = counts and not fields[3] and has_untried(pool, ARGV[1], tried, fields[2] or 0)
if ARGV[11] == '1' and not others and not fields[3] and redis.call('ZSCORE', KEYS[5], composite)
    and redis.call('EXISTS', hash) == 1 then
    return 3
end
local pace = open_pace(ARGV[17], ARGV[16])
if pace then
    settle_execution_pace(pace, KEYS[6], tonumber(ARGV[18]), 0)
end
redis.call('DEL', KEYS[6], KEYS[7])
redis.call('SREM', KEYS[4], composite)
if redis.call('ZREM', KEYS[5], composite) == 0 then
    return 0
end
if redis.call('EXISTS', KEYS[3]) == 1 then
    redis.call('HINCRBY', KEYS[3], 'failed_job_count', 1)
    redis.call('HINCRBYFLOAT', KEYS[3], 'total_working_time', ARGV[3])
    redis.call('HSET', KEYS[3], 'state', 'idle', 'last_heartbeat', ARGV[4])
end
if redis.call('EXISTS', hash) == 0 then
    return 0
end
local owner = read_owner(hash)
record_worked_time(pool, owner, ARGV[3], counts)
if fields[3] then
    release_waiting_job(pool, hash, ARGV[1])
    if ARGV[8] ~= '' then
        redis.call('XADD', KEYS[12], '*', 'e', ARGV[8])
    end
    redis.call('DEL', hash)
    delete_body(ARGV[1])
    return 0
end
redis.call('HINCRBY', hash, 'number_of_retries', ARGV[6])
redis.call('HSET', hash, 'status', 'queued', 'worker_name', '', 'enqueued_at', ARGV[4])
if counts then
    redis.call('HSET', hash, 'farm_tried', tried, 'farm_retry_at', now + tonumber(ARGV[10]))
    if ARGV[15] == '1' and owner.key and (owner.model or '') ~= '' then
        return_aside(pool, owner, ARGV[1], now)
        return 1
    end
    park(pool, ARGV[1], now)
    if not others then
        return 2
    end
    wake_untried(pool, tried, now)
    return 1
end
-- A failed probe goes to the end of the queue, so that a request which fails everywhere does not hold up the others.
if owner.key then
    rejoin_queue(pool, owner.band, owner.key, ARGV[1], false)
    redis.call('HSET', hash, 'farm_lined', 1)
end
push_to_rq(pool, owner.band, ARGV[1], now, 'RPUSH')
return 1
