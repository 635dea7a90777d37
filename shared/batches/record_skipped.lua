-- Records, as errors, those of some lines that have no result: their batch has expired, or was cancelled.
-- KEYS: the record, the lease, the bits of lines that are done, results
-- ARGV: holder of the lease, the record's field that counts why they failed, then lines' numbers and results by turns
-- Result: how many were recorded, -1 if the lease is lost
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return -1
end
local count, bytes = 0, 0
for i = 3, #ARGV, 2 do
    if redis.call('SETBIT', KEYS[3], ARGV[i], 1) == 0 then
        redis.call('RPUSH', KEYS[4], ARGV[i + 1])
        count, bytes = count + 1, bytes + #ARGV[i + 1]
    end
end
if count > 0 then
    redis.call('HINCRBY', KEYS[1], 'failed', count)
    redis.call('HINCRBY', KEYS[1], ARGV[2], count)
    redis.call('HINCRBY', KEYS[1], 'result_bytes', bytes)
end
return count
