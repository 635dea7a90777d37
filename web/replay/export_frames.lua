-- Adds one entry to a run's export, and wakes the fronts that follow it. The first one begins the export anew. Idempotent.
-- KEYS: export
-- ARGV: number of the entry, from 0; the entry, '' for none; lifetime of the export (milliseconds), message, then the
--       channels of the fronts
if ARGV[2] ~= '' and ARGV[1] == '0' then
    redis.call('DEL', KEYS[1])
end
local missing = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
if ARGV[2] ~= '' and missing >= 0 then
    -- A crash of Redis may have lost the last entries; who has read them can go on.
    for _ = 1, missing do
        redis.call('RPUSH', KEYS[1], '')
    end
    redis.call('RPUSH', KEYS[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for i = 5, #ARGV do
    redis.call('PUBLISH', ARGV[i], ARGV[4])
end
