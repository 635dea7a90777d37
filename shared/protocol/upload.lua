-- Stores one piece of a large body. Idempotent, also when pieces of an earlier try come late: they change nothing that
-- is there, or the upload fails by its length.
-- KEYS: upload
-- ARGV: offset of the piece, lifetime of the upload (milliseconds), piece
-- Result: bytes stored so far
if ARGV[1] == '0' then
    redis.call('SET', KEYS[1], ARGV[3], 'PX', ARGV[2])
    return #ARGV[3]
end
local length = redis.call('STRLEN', KEYS[1])
if length == tonumber(ARGV[1]) then
    return redis.call('APPEND', KEYS[1], ARGV[3])
end
return length
