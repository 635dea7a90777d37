"""What is in an upstream response: errors in disguise, its end, its usage, its rewriting. No I/O."""
