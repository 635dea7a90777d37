"""The front: a Flask app under gunicorn that takes OpenAI-style requests, enqueues them and streams the answers."""
