"""The operator's side of the front: the door to /admin and the JSON API behind it."""
