-- Brings a batch from one of some states into another. Comes after readers.lua.
-- KEYS: the record, its lease, its running lines, the bits of its lines that are done, its results, unfinished batches,
--       unfinished batches of its API key, events, the record of its input file
-- ARGV: id, holder of the lease ('' for anyone), the states it may come from, separated by spaces, whether running lines are
--       disowned (1), seconds that the record is kept if this ends the batch, else '', event that tells of it, '' for none, then
--       fields of the record and their values by turns
-- Result: 1 if it was changed
if ARGV[2] ~= '' and redis.call('GET', KEYS[2]) ~= ARGV[2] then
    return 0
end
local status = redis.call('HGET', KEYS[1], 'status')
if not status or not string.find(' ' .. ARGV[3] .. ' ', ' ' .. status .. ' ', 1, true) then
    return 0
end
redis.call('HSET', KEYS[1], unpack(ARGV, 7))
if ARGV[4] == '1' then
    redis.call('DEL', KEYS[3])
end
if ARGV[5] ~= '' then
    redis.call('DEL', KEYS[3], KEYS[4], KEYS[5])
    redis.call('ZREM', KEYS[6], ARGV[1])
    redis.call('SREM', KEYS[7], ARGV[1])
    redis.call('EXPIRE', KEYS[1], ARGV[5])
    remove_reader(KEYS[9], ARGV[1])
end
if ARGV[6] ~= '' then
    redis.call('XADD', KEYS[8], 'MAXLEN', '~', 10000, '*', 'e', ARGV[6])
end
return 1
