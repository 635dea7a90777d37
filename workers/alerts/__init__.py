"""Alerts: one worker process of the farm watches what is wrong, and a short-lived process sends each message.

The process that sends is one of its own because a service may be slow, dead or broken, and because apprise, which knows
how to reach it, takes 0.7 s and 20 MB to load: no request should wait for either.
"""
