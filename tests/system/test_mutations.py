"""Requests with mistakes in them never get a 5xx."""

import asyncio

from bench.mutations import find_failures, send_mutated_requests
from tests.system.farm import KEY, Farm


def test_mutated_requests_always_get_a_response_and_never_a_5xx(farm: Farm):
    counts = asyncio.run(send_mutated_requests(farm.port, KEY, 600, seed=7))
    assert find_failures(counts) == {}
    assert {"200", "400", "401", "404"} <= set(counts)
    assert "Traceback" not in farm.log()
