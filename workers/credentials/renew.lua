-- Renews the leases that the worker process still holds.
-- KEYS: leases
-- ARGV: lease time (ms), then the expected value of each lease
-- Result: positions (from 1) of the leases that were lost
local lost = {}
for i, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[i + 1] then
        redis.call('PEXPIRE', key, ARGV[1])
    else
        lost[#lost + 1] = i
    end
end
return lost
