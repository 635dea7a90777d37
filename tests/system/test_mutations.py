"""Requests that are nearly right find an answer, and never a mistake of ours."""

import asyncio

from bench.mutations import find_failures, send_mutated_requests
from tests.system.farm import KEY, Farm


def test_no_request_with_mistakes_in_it_finds_a_5xx_or_none(farm: Farm):
    found = asyncio.run(send_mutated_requests(farm.port, KEY, 600, seed=7))
    assert find_failures(found) == {}
    assert {"200", "400", "401", "404"} <= set(found)
    assert "Traceback" not in farm.log()
