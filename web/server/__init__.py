"""The socket layer below the app: the gunicorn worker, disconnects, client addresses, CORS."""
