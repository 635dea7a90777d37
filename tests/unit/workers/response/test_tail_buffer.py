"""A tail buffer keeps the last bytes of a stream."""

import random

import pytest

from tests import internals
from workers.response.tail_buffer import TailBuffer


@pytest.mark.parametrize("seed", range(20))
def test_tail_is_the_end_of_the_whole_stream(seed: int):
    rng = random.Random(seed)
    tail, stream = TailBuffer(50), b""
    for _ in range(rng.randint(0, 40)):
        chunk = rng.randbytes(rng.choice((0, 1, 7, 49, 50, 51, 100, 300)))
        tail.feed(chunk)
        stream += chunk
        if rng.random() < 0.2:
            assert tail.bytes() == stream[-50:]
    assert tail.bytes() == stream[-50:]


def test_tail_buffer_is_bounded_in_size():
    tail = TailBuffer(1000)
    for _ in range(10_000):
        tail.feed(bytes(100))
    assert internals.retained_bytes(tail) <= 2100
