-- Adds up what has come to the request log since the last time, by the hour and by the day.
-- KEYS: request log, id of the last entry that was added up, when each API key was last used
-- ARGV: most entries at a time, stem of the sums of an hour, of a day, seconds that either are kept, most fields of a sum
-- Sums are hashes of <kind> <metric> <...>, parted by unit separators: `k` of key, pool and model, `c` of pool and
-- credential. When a sum has its most fields, further models are added up as `(others)`.
-- An entry is added up once, whoever asks, because its sums and the mark of how far they go are written together.
-- Result: entries added up
local US, MOST_TOKENS = '\31', 1e9
local most = tonumber(ARGV[1])
local page = redis.call('XRANGE', KEYS[1], '(' .. (redis.call('GET', KEYS[2]) or '0-0'), '+', 'COUNT', most)
local sums, used = {}, {}

local function add(sum, kind, names, amounts)
    local fields = sums[sum] or {}
    sums[sum] = fields
    for metric, amount in pairs(amounts) do
        if amount ~= 0 then
            local field = kind .. US .. metric .. US .. names
            fields[field] = (fields[field] or 0) + amount
        end
    end
end

-- What is no entry, whoever wrote it, is passed over: it would stop all others behind it.
local function is_whole(entry)
    local texts, numbers = {2, 3, 4, 10, 17}, {8, 14, 15, 16}
    for _, place in ipairs(texts) do
        if type(entry[place]) ~= 'string' then
            return false
        end
    end
    for _, place in ipairs(numbers) do
        local number = entry[place]
        if type(number) ~= 'number' or number < 0 or number > MOST_TOKENS or number ~= math.floor(number) then
            return false
        end
    end
    return true
end

local function fold(id, entry)
    local at = math.floor(tonumber(id:match('^%d+')) / 1000)
    -- By their places in shared/request_log.py.
    local key, pool, model, status, credential = entry[2], entry[3], entry[4], entry[8], entry[10]
    local prompt, completion, estimated, code = entry[14], entry[15], entry[16], entry[17]
    local amounts = {
        requests = 1,
        failed = (status >= 400 or code ~= '') and 1 or 0,
        prompt_tokens = prompt,
        completion_tokens = completion,
        estimated_tokens = estimated == 1 and prompt + completion or 0,
    }
    for _, sum in ipairs({ARGV[2] .. at - at % 3600, ARGV[3] .. at - at % 86400}) do
        add(sum, 'k', key .. US .. pool .. US .. model, amounts)
        if credential ~= '' then
            add(sum, 'c', pool .. US .. credential, amounts)
        end
    end
    used[key] = at
end

for _, one in ipairs(page) do
    local is_json, entry = pcall(cjson.decode, one[2][2])
    if is_json and type(entry) == 'table' and is_whole(entry) then
        fold(one[1], entry)
    end
end

for sum, fields in pairs(sums) do
    local full = redis.call('HLEN', sum) >= tonumber(ARGV[6])
    for field, amount in pairs(fields) do
        if full and field:sub(1, 1) == 'k' and redis.call('HEXISTS', sum, field) == 0 then
            field = field:match('^(.*' .. US .. ')') .. '(others)'
        end
        redis.call('HINCRBY', sum, field, amount)
    end
    redis.call('EXPIRE', sum, sum:sub(1, #ARGV[2]) == ARGV[2] and ARGV[4] or ARGV[5])
end
for key, at in pairs(used) do
    redis.call('HSET', KEYS[3], key, at)
end
if #page > 0 then
    redis.call('SET', KEYS[2], page[#page][1])
end
return #page
