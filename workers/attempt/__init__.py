"""One attempt of a relay request on one credential, from access token to last frame."""
