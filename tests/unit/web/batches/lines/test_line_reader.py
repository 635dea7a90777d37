"""The lines of a batch's input, from pieces of any size."""

import pytest

from web.batches.lines.line_reader import InputLine, iter_lines

CONTENT = b'{"a": 1}\n\n  \r\n{"b": 2}\r\n{"c": 3}'
LINES = [InputLine(1, 0, 9, b'{"a": 1}'), InputLine(4, 14, 10, b'{"b": 2}'), InputLine(5, 24, 8, b'{"c": 3}')]


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_lines_are_found_however_the_input_is_cut(size: int):
    pieces = [CONTENT[start : start + size] for start in range(0, len(CONTENT), size)]
    assert list(iter_lines(pieces, 100)) == LINES


@pytest.mark.parametrize("read", [0, 1, 2])
def test_reading_goes_on_behind_any_line(read: int):
    last = LINES[read]
    rest = CONTENT[last.offset + last.length :]
    assert list(iter_lines([rest], 100, last.number + 1, last.offset + last.length)) == LINES[read + 1 :]


def test_too_long_a_line_has_no_data_and_the_next_one_does():
    long = b"x" * 20 + b"\n"
    lines = list(iter_lines([long[:15], long[15:] + b"next\n"], 10))
    assert lines == [InputLine(1, 0, 21, None), InputLine(2, 21, 5, b"next")]


def test_no_piece_is_read_before_its_line_is_asked_for():
    taken = []

    def iter_pieces():
        for piece in (b"1\n", b"2\n", b"3\n"):
            taken.append(piece)
            yield piece

    next(iter_lines(iter_pieces(), 100))
    assert taken == [b"1\n"]


def test_a_byte_order_mark_is_no_part_of_the_first_line():
    lines = list(iter_lines([b"\xef\xbb\xbf 1\n\xef\xbb\xbf2\n"], 100))
    assert [line.data for line in lines] == [b"1", b"\xef\xbb\xbf2"]
    assert (lines[0].offset, lines[0].length) == (0, 6)


@pytest.mark.parametrize("max_bytes", [5, 100])
def test_which_lines_are_blank_does_not_depend_on_how_long_they_may_be(max_bytes: int):
    content = b"\xef\xbb\xbf" + b" " * 10 + b"\n" + b" " * 10 + b"\n" + b" " * 10 + b"x\n" + b"\t" * 10
    assert [line.number for line in iter_lines([content[:20], content[20:]], max_bytes)] == [1, 3]
