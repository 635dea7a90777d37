-- Adds a batch of counts to the farm's, once: its process sends it again when the reply was lost.
-- KEYS: counters, number of the process's last batch
-- ARGV: number of this batch, then field and amount of each count
-- Result: 1 when added, 0 when it had been added before
if tonumber(redis.call('GET', KEYS[2]) or 0) >= tonumber(ARGV[1]) then
    return 0
end
redis.call('SET', KEYS[2], ARGV[1], 'EX', 3600)
for i = 2, #ARGV, 2 do
    redis.call('HINCRBYFLOAT', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
