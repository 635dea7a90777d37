"""The file limit is raised as far as the system lets it, and nothing fails where it does not."""

import resource
import subprocess
import sys

from shared.file_limit import raise_file_limit


def limits_tried(refused_above: int) -> list[int]:
    """What is tried on a system that refuses limits above that one, as macOS does."""
    tried: list[int] = []

    def set_limit(_: int, limits: tuple[int, int]) -> None:
        tried.append(limits[0])
        if limits[0] > refused_above:
            raise ValueError("current limit exceeds maximum limit")

    raise_file_limit(set_limit)
    return tried


def test_lower_limits_are_tried_after_a_refusal():
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 256), hard))
        tried = limits_tried(10_240)
        assert tried[-1] <= 10_240
        assert tried == sorted(tried, reverse=True)
        assert resource.RLIM_INFINITY not in tried
        limits_tried(0)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_soft_limit_is_raised():
    script = """
import resource
from shared.file_limit import raise_file_limit
hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
resource.setrlimit(resource.RLIMIT_NOFILE, (100, hard))
raise_file_limit()
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    assert int(printed) == min(hard if hard != resource.RLIM_INFINITY else 1_048_576, 1_048_576)
