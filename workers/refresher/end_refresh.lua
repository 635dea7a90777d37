-- Ends the record of begin_refresh.lua after a refresh without a grant.
-- KEYS: credential
-- ARGV: id of the refresher, since when the credential is in doubt ('' when the token endpoint has answered)
-- Result: 1 if it is in doubt only now
if redis.call('HGET', KEYS[1], 'refreshing_by') ~= ARGV[1] then
    return 0
end
redis.call('HDEL', KEYS[1], 'refreshing_by', 'refreshing_token', 'refreshing_since')
return ARGV[2] ~= '' and redis.call('HSETNX', KEYS[1], 'in_doubt_since', ARGV[2]) or 0
