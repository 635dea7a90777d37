-- Adds the new entries of the request log to the hourly and daily sums.
-- KEYS: request log, id of the last entry that was added, when each API key was last used
-- ARGV: entries per call, key prefixes of the hourly and of the daily sums, their TTLs in seconds, most fields of a sum
-- A sum is a hash. Its fields are <kind> <metric> <names>, joined by unit separators: kind `k` is by API key, pool and
-- model, kind `c` by pool and credential. When a sum is full, further models are added under `(others)`, and those that
-- do not exist (404, or 400 for each request of the name) under `(unknown)`: callers can make up any number of names.
-- Every entry is added exactly once, by whichever process: its sums and the last id are written in the same script.
-- Returns the number of entries read.
local SEPARATOR, MAX_NUMBER = '\31', 1e9
local UNKNOWN_MODEL = '(unknown)'
local METRICS = {'requests', 'failed', 'prompt_tokens', 'completion_tokens', 'estimated_tokens'}
local entries = redis.call('XRANGE', KEYS[1], '(' .. (redis.call('GET', KEYS[2]) or '0-0'), '+', 'COUNT', ARGV[1])
local hours, last_used = {}, {}

-- A malformed entry is skipped; an error here would block all entries after it.
local function is_valid(entry)
    for _, position in ipairs({2, 3, 4, 10, 17}) do
        if type(entry[position]) ~= 'string' then
            return false
        end
    end
    for _, position in ipairs({8, 14, 15, 16}) do
        local number = entry[position]
        if type(number) ~= 'number' or number < 0 or number > MAX_NUMBER or number ~= math.floor(number) then
            return false
        end
    end
    return true
end

-- How many refused requests an entry stands for (shared/observability/request_log.py, COUNT_FIELD).
local function read_count(fields)
    local count = fields[3] == 'n' and tonumber(fields[4]) or 1
    return count >= 1 and count <= MAX_NUMBER and math.floor(count) or 1
end

local function add_to_group(groups, kind, names, count, failed, prompt, completion, estimated, is_refused)
    local group = kind .. names
    local sums = groups[group]
    if not sums then
        sums = {0, 0, 0, 0, 0, kind = kind, names = names, is_refused = true}
        groups[group] = sums
    end
    sums.is_refused = sums.is_refused and is_refused
    sums[1], sums[2] = sums[1] + count, sums[2] + failed
    sums[3], sums[4], sums[5] = sums[3] + prompt, sums[4] + completion, sums[5] + estimated
end

-- `count` is the number of requests that the entry stands for.
local function add_entry(id, entry, count)
    local seconds = math.floor(tonumber(id:match('^%d+')) / 1000)
    -- Positions as in LogEntry (shared/observability/request_log.py).
    local key, pool, model, status, credential = entry[2], entry[3], entry[4], entry[8], entry[10]
    local prompt, completion, code = entry[14], entry[15], entry[17]
    local failed = (status >= 400 or code ~= '') and count or 0
    if status == 404 then
        model = UNKNOWN_MODEL
    end
    local estimated = entry[16] == 1 and prompt + completion or 0
    local hour = seconds - seconds % 3600
    local groups = hours[hour] or {}
    hours[hour] = groups
    add_to_group(groups, 'k', key .. SEPARATOR .. pool .. SEPARATOR .. model, count, failed, prompt, completion, estimated,
        status == 400)
    if credential ~= '' then
        add_to_group(groups, 'c', pool .. SEPARATOR .. credential, count, failed, prompt, completion, estimated, false)
    end
    last_used[key] = seconds
end

local function write_sum(sum, ttl, groups)
    local is_full = redis.call('HLEN', sum) >= tonumber(ARGV[6])
    local gains = {}
    for _, sums in pairs(groups) do
        local names = sums.names
        local requests_field = 'k' .. SEPARATOR .. METRICS[1] .. SEPARATOR .. names
        if (is_full or sums.is_refused) and sums.kind == 'k' and redis.call('HEXISTS', sum, requests_field) == 0 then
            names = names:match('^(.*' .. SEPARATOR .. ')') .. (is_full and '(others)' or UNKNOWN_MODEL)
        end
        for i, metric in ipairs(METRICS) do
            if sums[i] ~= 0 then
                local field = sums.kind .. SEPARATOR .. metric .. SEPARATOR .. names
                gains[field] = (gains[field] or 0) + sums[i]
            end
        end
    end
    -- Two calls for all fields. Lua unpacks 8,000 values at most; an entry adds up to ten fields.
    local fields = {}
    for field in pairs(gains) do
        fields[#fields + 1] = field
    end
    local set = {}
    for i, before in ipairs(redis.call('HMGET', sum, unpack(fields))) do
        set[2 * i - 1], set[2 * i] = fields[i], (tonumber(before or nil) or 0) + gains[fields[i]]
    end
    redis.call('HSET', sum, unpack(set))
    redis.call('EXPIRE', sum, ttl)
end

for _, stream_entry in ipairs(entries) do
    local id, fields = stream_entry[1], stream_entry[2]
    local is_json, entry = pcall(cjson.decode, fields[2])
    if is_json and type(entry) == 'table' and is_valid(entry) then
        add_entry(id, entry, read_count(fields))
    end
end
for hour, groups in pairs(hours) do
    write_sum(ARGV[2] .. hour, ARGV[4], groups)
    write_sum(ARGV[3] .. hour - hour % 86400, ARGV[5], groups)
end
for key, seconds in pairs(last_used) do
    redis.call('HSET', KEYS[3], key, seconds)
end
if #entries > 0 then
    redis.call('SET', KEYS[2], entries[#entries][1])
end
return #entries
