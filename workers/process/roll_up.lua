-- Adds up what has come to the request log since the last time, by the hour and by the day.
-- KEYS: request log, id of the last entry that was added up, when each API key was last used
-- ARGV: most entries at a time, stem of the sums of an hour, of a day, seconds that either are kept, most fields of a sum
-- Sums are hashes of <kind> <metric> <...>, parted by unit separators: `k` of key, pool and model, `c` of pool and
-- credential. When a sum has its most fields, further models are added up as `(others)`.
-- An entry is added up once, whoever asks, because its sums and the mark of how far they go are written together.
-- Result: entries added up
local US, MOST_TOKENS = '\31', 1e9
local METRICS = {'requests', 'failed', 'prompt_tokens', 'completion_tokens', 'estimated_tokens'}
local most = tonumber(ARGV[1])
local page = redis.call('XRANGE', KEYS[1], '(' .. (redis.call('GET', KEYS[2]) or '0-0'), '+', 'COUNT', most)
local hours, used = {}, {}

-- What is no entry, whoever wrote it, is passed over: it would stop all others behind it.
local function is_whole(entry)
    for _, place in ipairs({2, 3, 4, 10, 17}) do
        if type(entry[place]) ~= 'string' then
            return false
        end
    end
    for _, place in ipairs({8, 14, 15, 16}) do
        local number = entry[place]
        if type(number) ~= 'number' or number < 0 or number > MOST_TOKENS or number ~= math.floor(number) then
            return false
        end
    end
    return true
end

local function add(groups, kind, names, failed, prompt, completion, estimated)
    local group = kind .. names
    local sums = groups[group]
    if not sums then
        sums = {0, 0, 0, 0, 0, kind = kind, names = names}
        groups[group] = sums
    end
    sums[1], sums[2] = sums[1] + 1, sums[2] + failed
    sums[3], sums[4], sums[5] = sums[3] + prompt, sums[4] + completion, sums[5] + estimated
end

local function fold(id, entry)
    local at = math.floor(tonumber(id:match('^%d+')) / 1000)
    -- By their places in shared/observability/request_log.py.
    local key, pool, model, status, credential = entry[2], entry[3], entry[4], entry[8], entry[10]
    local prompt, completion, code = entry[14], entry[15], entry[17]
    local failed = (status >= 400 or code ~= '') and 1 or 0
    local estimated = entry[16] == 1 and prompt + completion or 0
    local hour = at - at % 3600
    local groups = hours[hour] or {}
    hours[hour] = groups
    add(groups, 'k', key .. US .. pool .. US .. model, failed, prompt, completion, estimated)
    if credential ~= '' then
        add(groups, 'c', pool .. US .. credential, failed, prompt, completion, estimated)
    end
    used[key] = at
end

local function write(sum, keep, groups)
    local full = redis.call('HLEN', sum) >= tonumber(ARGV[6])
    local gains = {}
    for _, sums in pairs(groups) do
        local names = sums.names
        if full and sums.kind == 'k' and redis.call('HEXISTS', sum, 'k' .. US .. METRICS[1] .. US .. names) == 0 then
            names = names:match('^(.*' .. US .. ')') .. '(others)'
        end
        for i, metric in ipairs(METRICS) do
            if sums[i] ~= 0 then
                local field = sums.kind .. US .. metric .. US .. names
                gains[field] = (gains[field] or 0) + sums[i]
            end
        end
    end
    -- Two calls for all fields, ten at most for each of a few hundred entries: Lua unpacks 8,000 values at most.
    local fields = {}
    for field in pairs(gains) do
        fields[#fields + 1] = field
    end
    local set = {}
    for i, before in ipairs(redis.call('HMGET', sum, unpack(fields))) do
        set[2 * i - 1], set[2 * i] = fields[i], (tonumber(before or nil) or 0) + gains[fields[i]]
    end
    redis.call('HSET', sum, unpack(set))
    redis.call('EXPIRE', sum, keep)
end

for _, one in ipairs(page) do
    local is_json, entry = pcall(cjson.decode, one[2][2])
    if is_json and type(entry) == 'table' and is_whole(entry) then
        fold(one[1], entry)
    end
end
for hour, groups in pairs(hours) do
    write(ARGV[2] .. hour, ARGV[4], groups)
    write(ARGV[3] .. hour - hour % 86400, ARGV[5], groups)
end
for key, at in pairs(used) do
    redis.call('HSET', KEYS[3], key, at)
end
if #page > 0 then
    redis.call('SET', KEYS[2], page[#page][1])
end
return #page
