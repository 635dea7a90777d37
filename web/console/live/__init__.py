"""Live updates of pages: server-sent events with what has changed, while somebody watches."""
