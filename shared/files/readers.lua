-- Functions for scripts that know which unfinished batches read a file. The field `readers` of its record has their ids, with
-- a space behind each, so nothing of them is left when the file is deleted.
local function add_reader(file, batch)
    redis.call('HSET', file, 'readers', (redis.call('HGET', file, 'readers') or '') .. batch .. ' ')
end

local function remove_reader(file, batch)
    local readers = redis.call('HGET', file, 'readers') or ''
    local first, last = string.find(readers, batch .. ' ', 1, true)
    if first then
        redis.call('HSET', file, 'readers', string.sub(readers, 1, first - 1) .. string.sub(readers, last + 1))
    end
end

-- `unfinished` is the list of unfinished batches, in which a batch whose record was lost is no more.
local function is_read(file, unfinished)
    for batch in string.gmatch(redis.call('HGET', file, 'readers') or '', '%S+') do
        if redis.call('ZSCORE', unfinished, batch) then
            return true
        end
    end
    return false
end
