"""The store of refresh tokens, which are sealed on the way in."""
