"""Request log, usage, counters, audit log, pool status, logging."""
