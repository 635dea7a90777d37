-- Records that a refresh token is about to be presented, so that no other token refresher presents it meanwhile, and one
-- that is killed leaves a trace: then the token may have been rotated, and the credential is in doubt.
-- KEYS: credential, lease, token refreshers
-- ARGV: value of the lease, id of the refresher, fingerprints of the current and of the presented refresh token, now,
--       reports older than this are those of dead refreshers, and records older than this are abandoned
-- Result: {1, in doubt since ('' for not in doubt), whether it is so only now}; {0} when another refresher is at work or
--         the credential has another token by now; {-1} when the lease is lost
if redis.call('GET', KEYS[2]) ~= ARGV[1] then
    return {-1}
end
local record = redis.call('HMGET', KEYS[1], 'fingerprint', 'refreshing_by', 'refreshing_token', 'refreshing_since',
    'in_doubt_since')
if record[1] ~= ARGV[3] then
    return {0}
end
local owner, in_doubt_since, is_new = record[2], record[5], 0
if owner and owner ~= ARGV[2] then
    local reported_at = redis.call('ZSCORE', KEYS[3], owner)
    if reported_at and tonumber(reported_at) > tonumber(ARGV[6]) and tonumber(record[4]) > tonumber(ARGV[7]) then
        return {0}
    end
    if not in_doubt_since and (record[3] == ARGV[3] or record[3] == ARGV[4]) then
        in_doubt_since, is_new = ARGV[5], 1
        redis.call('HSET', KEYS[1], 'in_doubt_since', in_doubt_since)
    end
end
redis.call('HSET', KEYS[1], 'refreshing_by', ARGV[2], 'refreshing_token', ARGV[4], 'refreshing_since', ARGV[5])
return {1, in_doubt_since or '', is_new}
