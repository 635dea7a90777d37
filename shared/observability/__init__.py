"""Request log, usage, metrics, audit log, pool status and logging."""
