-- Renews leases that are still the caller's.
-- KEYS: leases
-- ARGV: lease time in milliseconds, then what each lease must hold
-- Result: places (from 1) of those that were lost
local lost = {}
for i, key in ipairs(KEYS) do
    if redis.call('GET', key) == ARGV[i + 1] then
        redis.call('PEXPIRE', key, ARGV[1])
    else
        lost[#lost + 1] = i
    end
end
return lost
