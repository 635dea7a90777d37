-- Keeps an answer under a name, unless there is not enough room for it even without any other: the least recently used
-- go first. Comes after kept_answers.lua.
-- KEYS: the pieces that were stored before (a list)
-- ARGV: name, print, lifetime (milliseconds), most bytes of all answers, number of pieces, the last piece
-- Result: 1 if it is kept
local name, ttl, max_bytes, count = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local now = read_milliseconds()
drop_expired(now)
local total = drop_answer(name)
local pieces = redis.call('LRANGE', KEYS[1], 0, -1)
pieces[#pieces + 1] = ARGV[6]
redis.call('DEL', KEYS[1])
local size = ENTRY_BYTES
for _, piece in ipairs(pieces) do
    size = size + #piece
end
if #pieces ~= count or size > max_bytes then
    return 0
end
while total + size > max_bytes do
    total = drop_answer(redis.call('ZRANGE', USED, 0, 0)[1])
end
redis.call('RPUSH', answer_key(name), ARGV[2] ~= '' and ARGV[2] or string.format('%.0f', now), unpack(pieces))
redis.call('PEXPIRE', answer_key(name), ttl)
redis.call('HSET', SIZES, name, size)
redis.call('HINCRBY', SIZES, TOTAL, size)
redis.call('ZADD', USED, now, name)
redis.call('ZADD', ENDS, now + ttl, name)
return 1
