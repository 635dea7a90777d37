-- Settles a job that fails, and forgets its body; RQ's own method ends the job then. Comes after limits.lua, fair.lua and
-- ending.lua.
-- KEYS: job, body, the pool's fair queue, request log, started registry
-- ARGV: job id, tokens that it has used all the same, '1' when it counts for the quota of requests, seconds worked,
--       its entry in the request log, '' for none, its execution as the registry names it
-- Asked again, it does nothing; nor for an execution that was ended or handed on before.
-- Result: 1 when it is this execution's to end
if not redis.call('ZSCORE', KEYS[5], ARGV[6]) then
    return 0
end
if redis.call('EXISTS', KEYS[1]) == 1 and redis.call('HSETNX', KEYS[1], 'farm_settled', 1) == 1 then
    local whose = read_owner(KEYS[1])
    record_worked_time({base = KEYS[3]}, whose, ARGV[4])
    if whose.limited then
        settle_usage(whose.key, ARGV[1], tonumber(ARGV[2]), ARGV[3] == '1')
    end
    if ARGV[5] ~= '' then
        redis.call('XADD', KEYS[4], '*', 'e', ARGV[5])
    end
end
redis.call('DEL', KEYS[2])
return 1
