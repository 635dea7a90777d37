"""What is told of a batch whose input was deleted, or can't be found, before it has ended."""

from collections.abc import Iterable
from typing import Any

from shared.batches.batch import Batch
from web.batches.lines.line_parser import InvalidLine
from web.batches.lines.results import render_skipped
from web.batches.services import BatchServices

CODE, REASON = "input_file_gone", "the input file was deleted, or its content can't be found"


def describe_loss(batch: Batch) -> dict[str, Any]:
    """The error in the batch's object."""
    last = batch.last_line
    loss = f"no file names the requests after line {last}, which were not run" if last else "no request was run"
    return InvalidLine(CODE, f"{loss}: {REASON}.", "input_file_id").describe(last + 1 if last else None)


def render_lost(number: int, custom_id: str, code: str, message: str) -> bytes:
    """A line that has begun and can't be read again, as it stands in the error file: '' for an unknown custom_id."""
    return render_skipped(custom_id, code, message if custom_id else f"Line {number} of the input: {message}")


def record_abandoned(services: BatchServices, batch: Batch, numbers: Iterable[int]) -> None:
    """Records the lines that have begun, that nobody runs, and that can't be read again. Raises RedisError."""
    message = f"This request has no reply, and can't be run again: {REASON}."
    results = {number: render_lost(number, "", CODE, message) for number in numbers}
    if results:
        services.lines.record_skipped(batch.id, services.front_id, CODE, results)
