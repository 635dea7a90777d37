-- Gives up the claims of a run: its answer is kept, or there is none.
-- ARGV: run, then its names
-- Comes after kept_answers.lua.
for i = 2, #ARGV do
    if redis.call('HGET', run_key(ARGV[i]), 'run') == ARGV[1] then
        redis.call('DEL', run_key(ARGV[i]))
    end
end
