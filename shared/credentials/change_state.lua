-- change_state(): the one way in which scripts change a credential's state. Prepended to them.

-- `record`: {states of the pool, credential, history, id} are keys, and the credential's id.
-- `change`: state, reason, until ('' for none), now, evidence (shared/credentials/evidence.py) and retry_after ('' for
-- none), and `note`: the reason in the history if it is another one.
-- A new state, reason or evidence is an entry of the history. `state_since` tells since when state and reason are the
-- same. Whoever changes a state decides over what suspend.lua has kept.
local function change_state(record, change)
    local evidence = change.evidence or ''
    local state = redis.call('HGET', record.states, record.id)
    local before = redis.call('HMGET', record.credential, 'reason', 'evidence')
    local is_new = state ~= change.state or (before[1] or '') ~= change.reason
    if is_new or (before[2] or '') ~= evidence then
        redis.call('XADD', record.history, 'MAXLEN', '~', 100, '*', 'state', change.state,
            'reason', change.note or change.reason, 'evidence', evidence)
    end
    redis.call('HSET', record.states, record.id, change.state)
    redis.call('HSET', record.credential, 'reason', change.reason, 'until', change['until'], 'evidence', evidence,
        'retry_after', change.retry_after or '')
    if is_new then
        redis.call('HSET', record.credential, 'state_since', change.now)
    end
    redis.call('HDEL', record.credential, 'state_before', 'reason_before', 'until_before', 'evidence_before',
        'retry_after_before')
end
