"""Loaded by pytest before anything else: the tests run patched for gevent, as the farm's own processes do."""

from gevent import monkey

monkey.patch_all()
