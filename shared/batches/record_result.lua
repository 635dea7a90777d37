-- Records the result of a line, once: the run that began it last, and only while it has none.
-- KEYS: the record, running lines, the bits of lines that are done, results
-- ARGV: the line's number, its value in the running lines, the record's field that counts it (`completed` or `failed`), the
--       result, then fields of the record and what is added to them by turns
-- Result: 1 if it was recorded
if redis.call('HGET', KEYS[2], ARGV[1]) ~= ARGV[2] then
    return 0
end
redis.call('HDEL', KEYS[2], ARGV[1])
if redis.call('SETBIT', KEYS[3], ARGV[1], 1) == 1 then
    return 0
end
redis.call('RPUSH', KEYS[4], ARGV[4])
redis.call('HINCRBY', KEYS[1], ARGV[3], 1)
redis.call('HINCRBY', KEYS[1], 'result_bytes', #ARGV[4])
for i = 5, #ARGV, 2 do
    redis.call('HINCRBY', KEYS[1], ARGV[i], ARGV[i + 1])
end
return 1
