"""RQ's bookkeeping of a job (begin, end, requeue, fail, recover), each in one Lua call."""
