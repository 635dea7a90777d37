"""Signing in to the simulator: OpenID Connect with a consent page, and the device authorization grant."""
