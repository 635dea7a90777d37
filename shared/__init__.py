"""What both sides import: settings, errors, Redis keys, messages, the queue, the reply channel, the stores."""
