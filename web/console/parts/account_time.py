"""How pages show what accounts' time went into: shares of bars, and runs of the tape."""

from collections.abc import Mapping
from itertools import groupby
from typing import NamedTuple

from shared.observability.tape import ABSENT, LETTERS
from web.admin.telemetry.schemas import Tape, TapeRow
from web.console.parts.formats import percent
from web.console.parts.wording import WORK, translate

#: What a line of the tape's table has the shares of.
SHARED_WORK = ("busy", "idle", "idle_waiting")
#: Letter -> what it stands for.
WORK_OF_LETTER = {letter: work for work, letter in LETTERS.items()} | {ABSENT: "no worker"}


class Part(NamedTuple):
    """A part of a bar, as percentages of its length."""

    work: str
    begins: float
    length: float
    #: Seconds that it stands for.
    seconds: float


def split_bar(seconds: Mapping[str, float]) -> list[Part]:
    """What workers did -> parts of a bar, in the order of LETTERS."""
    total, parts, begins = sum(seconds.values()), list[Part](), 0.0
    for work in LETTERS:
        if count := seconds.get(work, 0.0):
            parts.append(Part(work, begins, 100 * count / total, count))
            begins += 100 * count / total
    return parts


def split_tape(letters: str) -> list[Part]:
    """A row of the tape -> its runs."""
    parts, at = list[Part](), 0
    for letter, run in groupby(letters):
        length = len(list(run))
        parts.append(Part(WORK_OF_LETTER[letter], 100 * at / len(letters), 100 * length / len(letters), length))
        at += length
    return parts


def count_tape(letters: str) -> dict[str, int]:
    """What the worker did -> seconds of a row of the tape."""
    return {work: count for letter, work in WORK_OF_LETTER.items() if (count := letters.count(letter))}


class TapeLine(NamedTuple):
    """A line of the tape's table."""

    row: TapeRow
    #: What the worker does now, in words.
    now: str
    #: The shares of SHARED_WORK.
    shares: list[str]


def list_lines(tape: Tape) -> list[TapeLine]:
    words = {letter: translate(WORK, work) for letter, work in tape.legend.items()}
    percents = [percent(count, tape.seconds) for count in range(tape.seconds + 1)]
    letters = [LETTERS[work] for work in SHARED_WORK]
    return [
        TapeLine(row, words[row.letters[-1]], [percents[row.letters.count(letter)] for letter in letters])
        for row in tape.data
    ]
