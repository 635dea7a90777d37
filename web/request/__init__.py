"""The life of one relay request: parse, select a pool, enqueue, wait, render the reply."""
