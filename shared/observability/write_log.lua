-- Appends entries to the request log, once, however often it is asked.
-- KEYS: request log, mark of this batch
-- ARGV: milliseconds that the mark is kept, then the entries
-- Result: 1 when they were written now
if not redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[1]) then
    return 0
end
for i = 2, #ARGV do
    redis.call('XADD', KEYS[1], '*', 'e', ARGV[i])
end
return 1
