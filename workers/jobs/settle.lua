-- Settles the usage of a failing job with its API key and deletes its body, before RQ's own method ends it.
-- Runs after limits.lua, fair.lua, bodies.lua, held_requests.lua, ending.lua, retries.lua, pace.lua and rests.lua. Idempotent; does nothing for an execution that has ended already.
-- KEYS: job, body, the pool's fair queue, request log, started registry
-- ARGV: job id, tokens used, '1' when it counts towards the quota of requests, seconds to charge,
--       entry in the request log ('' for none), composite key of the execution (RQ), limits of the account ('' for none,
--       pace.lua), base of its pace, seconds since its request was sent (negative if it never was), key of the execution
-- Result: 1 when this execution may end the job
if not redis.call('ZSCORE', KEYS[5], ARGV[6]) then
    return 0
end
local pace = open_pace(ARGV[8], ARGV[7])
if pace then
    settle_execution_pace(pace, ARGV[10], tonumber(ARGV[9]), tonumber(ARGV[2]))
end
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSETNX', KEYS[1], 'farm_settled', 1) == 1 then
    local owner = read_owner(KEYS[1])
    record_worked_time({base = KEYS[3]}, owner, ARGV[4], true)
    if owner.limited then
        end_usage(owner.key, ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1')
    end
    if ARGV[5] ~= '' then
        redis.call('XADD', KEYS[4], '*', 'e', ARGV[5])
    end
end
delete_body(ARGV[1])
return 1
