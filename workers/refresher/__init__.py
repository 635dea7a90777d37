"""The token refresher: a process per worker host that refreshes access tokens and holds no request.

A worker process that is killed, frozen or reloaded takes no refresh along: the token endpoint's answer, and with it a
rotated refresh token, goes to this process, which has nothing else to do than to store it.
"""
