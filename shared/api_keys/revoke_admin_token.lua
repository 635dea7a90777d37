-- Revokes an admin token, unless it is the last one of role `admin`; two admins can't revoke each other at once.
-- KEYS: hash of admin tokens
-- ARGV: SHA-256 of the token
-- Result: 1 if it was revoked, 0 if it is the last, -1 if it does not exist
local token = redis.call('HGET', KEYS[1], ARGV[1])
if not token then
    return -1
end
local function is_admin(stored)
    local is_json, record = pcall(cjson.decode, stored)
    return is_json and type(record) == 'table' and record.role == 'admin'
end
local admins = 0
for _, stored in ipairs(redis.call('HVALS', KEYS[1])) do
    admins = admins + (is_admin(stored) and 1 or 0)
end
if admins == 1 and is_admin(token) then
    return 0
end
redis.call('HDEL', KEYS[1], ARGV[1])
return 1
