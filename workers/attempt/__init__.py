"""One attempt of one request on one credential, from access token to last frame, and its outcome."""
