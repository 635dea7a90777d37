-- Appends a batch of entries to the request log or the events; idempotent, because a batch that was already written is skipped.
-- KEYS: the stream, mark of this batch
-- ARGV: TTL of the mark in milliseconds, then each entry and the number of requests that it stands for
-- Result: 1 if the batch was written, 0 if it had been written before
if not redis.call('SET', KEYS[2], 1, 'NX', 'PX', ARGV[1]) then
    return 0
end
for i = 2, #ARGV, 2 do
    if ARGV[i + 1] == '1' then
        redis.call('XADD', KEYS[1], '*', 'e', ARGV[i])
    else
        redis.call('XADD', KEYS[1], '*', 'e', ARGV[i], 'n', ARGV[i + 1])
    end
end
return 1
