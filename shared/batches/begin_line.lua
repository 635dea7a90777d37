-- Begins a line of a batch, or takes over one whose run has ended without a result.
-- KEYS: the record, the lease, running lines, the bits of lines that are done
-- ARGV: holder of the lease, the line's number, its value in the running lines as it is expected, '' for a new line, its new
--       value, the last line that was begun before, where in the input the next line starts (of a new line)
-- Result: 1 if the line has begun, 0 if it must not begin
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return 0
end
if redis.call('GETBIT', KEYS[4], ARGV[2]) == 1 or (redis.call('HGET', KEYS[3], ARGV[2]) or '') ~= ARGV[3] then
    return 0
end
if ARGV[3] == '' then
    -- Redis may have lost the last second: no line is skipped that it does not know as begun.
    if (redis.call('HGET', KEYS[1], 'last_line') or '0') ~= ARGV[5] then
        return 0
    end
    redis.call('HSET', KEYS[1], 'last_line', ARGV[2], 'next_offset', ARGV[6])
end
redis.call('HSET', KEYS[3], ARGV[2], ARGV[4])
return 1
