"""The front: a Flask app under gunicorn that enqueues OpenAI-style requests and streams the replies back."""
