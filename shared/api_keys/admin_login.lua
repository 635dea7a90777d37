-- Compares an admin token, unless its network, or all networks together, have presented too many wrong ones.
-- Checking, comparing and counting are one step: requests in parallel get no more guesses, however slow Redis is.
--
-- KEYS: admin tokens, wrong tokens of the network, wrong tokens of all, networks that have presented a right one
-- ARGV: digest of the token, network, time, most wrong tokens of a network, of all, seconds that they count,
--       seconds that a right token vouches for its network, seconds after which that is renewed, most such networks
-- Returns {"right", record}, {"wrong", wrong tokens of the network, of all}, {"banned", milliseconds left}.
local tokens, of_network, of_all, known_networks = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local digest, network, now = ARGV[1], ARGV[2], tonumber(ARGV[3])
local max_of_network, max_of_all, seconds = tonumber(ARGV[4]), tonumber(ARGV[5]), ARGV[6]

if tonumber(redis.call('GET', of_network) or 0) >= max_of_network then
    return {'banned', redis.call('PTTL', of_network)}
end
local right_at = tonumber(redis.call('ZSCORE', known_networks, network) or 0)
local is_known = now - right_at < tonumber(ARGV[7])
if not is_known and tonumber(redis.call('GET', of_all) or 0) >= max_of_all then
    return {'banned', redis.call('PTTL', of_all)}
end

local record = redis.call('HGET', tokens, digest)
if record then
    if now - right_at > tonumber(ARGV[8]) then
        redis.call('ZADD', known_networks, now, network)
        redis.call('ZREMRANGEBYRANK', known_networks, 0, -1 - tonumber(ARGV[9]))
    end
    return {'right', record}
end
local wrong = redis.call('INCR', of_network)
redis.call('EXPIRE', of_network, seconds)
local wrong_of_all = redis.call('INCR', of_all)
if wrong_of_all == 1 or wrong_of_all == max_of_all then
    redis.call('EXPIRE', of_all, seconds)
end
return {'wrong', wrong, wrong_of_all}
