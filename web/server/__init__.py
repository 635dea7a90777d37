"""The socket layer below the app: the gunicorn worker, disconnects, caller addresses, CORS."""
