"""Names of requests tell when these came."""

import pytest

from shared.names import find_request_time, new_request_id


def test_request_id_is_a_uuid_that_tells_when_it_was_made():
    request_id = new_request_id(1_790_000_000.123)
    assert (request_id[:4], len(request_id), request_id[16], request_id[20] in "89ab") == ("req_", 36, "7", True)
    assert find_request_time(request_id) == 1_790_000_000.123
    assert len({new_request_id(1_790_000_000.123) for _ in range(1000)}) == 1000
    assert new_request_id(1_790_000_000.123) < new_request_id(1_790_000_000.124)


@pytest.mark.parametrize(
    "request_id", ["", "req_1", f"req_{32 * '4'}", f"req_{12 * 'x'}7{19 * '0'}", f"req_{33 * '7'}"]
)
def test_other_ids_tell_nothing(request_id: str):
    assert find_request_time(request_id) is None
