-- Adds one entry to a run's export, and wakes the fronts that follow it. The first one begins the export anew. Idempotent.
-- KEYS: export
-- ARGV: number of the entry, from 0; the entry, '' for none; lifetime of the export (milliseconds), message, then the
--       channels of the fronts
if ARGV[2] ~= '' and ARGV[1] == '0' then
    redis.call('DEL', KEYS[1])
end
if ARGV[2] ~= '' and redis.call('LLEN', KEYS[1]) == tonumber(ARGV[1]) then
    redis.call('RPUSH', KEYS[1], ARGV[2])
end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
for i = 5, #ARGV do
    redis.call('PUBLISH', ARGV[i], ARGV[4])
end
