-- Appends a batch of entries to the request log; idempotent, because a batch that was already written is skipped.
-- KEYS: request log, mark of this batch
-- ARGV: TTL of the mark in milliseconds, then the entries
-- Result: 1 if the batch was written, 0 if it had been written before
if not redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[1]) then
    return 0
end
for i = 2, #ARGV do
    redis.call('XADD', KEYS[1], '*', 'e', ARGV[i])
end
return 1
