"""The socket under the app: gunicorn's worker, disconnects, client addresses, CORS."""
