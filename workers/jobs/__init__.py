"""RQ's bookkeeping for a job (begin, finish, requeue, fail, recover), each step one Lua call."""
