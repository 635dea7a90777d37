"""Applies gevent's patches before pytest imports anything else, as the farm's processes do at their start."""

from gevent import monkey

monkey.patch_all()
