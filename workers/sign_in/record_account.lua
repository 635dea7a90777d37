-- Records which account a credential belongs to, unless another credential has it.
-- KEYS: accounts of the pool, credentials of the pool, credential
-- ARGV: credential id, digest of the account, then the fields of the account and their values
-- Result: '' if recorded, or the credential is gone; else the id of the credential that has the account
if redis.call('HEXISTS', KEYS[2], ARGV[1]) == 0 then
    return ''
end
local known = redis.call('HGET', KEYS[1], ARGV[2])
if known and known ~= ARGV[1] and redis.call('HEXISTS', KEYS[2], known) == 1 then
    return known
end
local former = redis.call('HGET', KEYS[3], 'identity')
if former and former ~= ARGV[2] and redis.call('HGET', KEYS[1], former) == ARGV[1] then
    redis.call('HDEL', KEYS[1], former)
end
redis.call('HSET', KEYS[1], ARGV[2], ARGV[1])
redis.call('HSET', KEYS[3], 'identity', ARGV[2], unpack(ARGV, 3))
return ''
