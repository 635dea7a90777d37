-- Records that a credential was served one model while it rested for another: the pool's limits are counted per model.
-- KEYS: what the pool's limits are counted per, the pool's trial
-- ARGV: now (seconds), lifetime of the verdict (seconds), who tries ('' if this was no trial)
redis.call('HSET', KEYS[1], 'counts', 'model', 'confirmed_at', ARGV[1], 'contradictions', 0)
redis.call('HDEL', KEYS[1], 'retry_at', 'failures')
redis.call('EXPIRE', KEYS[1], ARGV[2])
if ARGV[3] ~= '' and redis.call('GET', KEYS[2]) == ARGV[3] then
    redis.call('DEL', KEYS[2])
end
