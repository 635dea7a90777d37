"""The end of a stream of bytes."""

import random

import pytest

from workers.response.tail_buffer import TailBuffer


@pytest.mark.parametrize("seed", range(20))
def test_it_is_what_slicing_the_whole_would_give(seed: int):
    draw = random.Random(seed)
    tail, whole = TailBuffer(50), b""
    for _ in range(draw.randint(0, 40)):
        piece = draw.randbytes(draw.choice((0, 1, 7, 49, 50, 51, 100, 300)))
        tail.feed(piece)
        whole += piece
        if draw.random() < 0.2:
            assert tail.bytes() == whole[-50:]
    assert tail.bytes() == whole[-50:]


def test_it_keeps_no_more_than_it_has_to():
    tail = TailBuffer(1000)
    for _ in range(10_000):
        tail.feed(bytes(100))
    assert sum(map(len, tail._parts)) <= 2100
