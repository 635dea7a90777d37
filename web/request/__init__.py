"""The life of one relay request: parse, choose a pool, enqueue, wait, render the reply."""
