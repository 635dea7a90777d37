"""Reads what a caller asks for with a new batch (OpenAI API reference, "Create batch")."""

from collections.abc import Mapping
from typing import Any

from shared import clock
from shared.api_keys.api_key import ApiKey
from shared.batches.batch import ENDPOINTS, Batch, new_batch_id, parse_window
from shared.batches.batch_store import TooManyBatches
from shared.creations.created_once import Once
from shared.errors import ApiError
from shared.files.file_record import BATCH, new_file_id
from shared.files.file_store import FileNotFound, Files
from shared.redis_connection.retry import retry_for
from web.access.private_callers import PrivateCaller
from web.batches.services import BatchServices

#: Bounds of `metadata`: pairs, characters of a name and of a value.
MAX_PAIRS, MAX_NAME_LENGTH, MAX_VALUE_LENGTH = 16, 64, 512
#: Bounds of the seconds for which a caller may ask to have the results kept.
MIN_TTL_SECONDS, MAX_TTL_SECONDS = 3600, 2_592_000
RETRY_AFTER_SECONDS = "60"


def create_batch(services: BatchServices, key: ApiKey, fields: Mapping[str, Any], once: Once | None = None) -> Batch:
    """Raises ApiError, CreatedBefore, CreatedOther."""
    endpoint, window = read_text(fields, "endpoint"), read_text(fields, "completion_window")
    if endpoint not in ENDPOINTS:
        raise invalid_value_error("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    seconds = parse_window(window)
    if seconds is None:
        raise invalid_value_error("completion_window", "must be 24h, or another time of up to 30 days in s, m, h or d")
    input_file_id = read_text(fields, "input_file_id")
    metadata, output_ttl = read_metadata(fields), read_ttl(fields)
    retry_for(lambda: check_input(services.files, key, input_file_id))
    now = int(clock.now())
    batch = Batch(
        id=new_batch_id(),
        key=key.id,
        endpoint=endpoint,
        input_file_id=input_file_id,
        output_file=new_file_id(),
        error_file=new_file_id(),
        created_at=now,
        completion_window=window,
        expires_at=now + seconds,
        pool=key.pool if isinstance(key, PrivateCaller) else "",
        metadata=metadata,
        output_ttl=output_ttl,
    )
    try:
        retry_for(lambda: services.store.add(batch, once))
    except TooManyBatches as error:
        message, headers = f"Too many batches: {error}.", {"retry-after": RETRY_AFTER_SECONDS}
        raise ApiError(429, "too_many_batches", message, "rate_limit_error", headers=headers) from None
    except FileNotFound:
        # It was there a moment ago.
        raise file_not_found_error(input_file_id) from None
    return batch


def check_input(files: Files, key: ApiKey, file_id: str) -> None:
    try:
        # Redis could not be asked for an id with lone surrogates.
        if not file_id.isascii():
            raise FileNotFound(file_id)
        record = files.get(key.id, file_id)
    except FileNotFound:
        raise file_not_found_error(file_id) from None
    if record.purpose != BATCH:
        message = f"The file has the purpose '{record.purpose}'; the input of a batch has '{BATCH}'."
        raise ApiError(400, "invalid_purpose", message, param="input_file_id")


def file_not_found_error(file_id: str) -> ApiError:
    return ApiError(404, "file_not_found", f"No such File object: {file_id[:100]}", param="input_file_id")


def read_text(fields: Mapping[str, Any], name: str) -> str:
    value = fields.get(name)
    if value is None:
        raise ApiError(400, "missing_required_parameter", f"Missing required parameter: '{name}'.", param=name)
    if not isinstance(value, str):
        raise ApiError(400, "invalid_type", f"'{name}' must be a string", param=name)
    return value


def read_metadata(fields: Mapping[str, Any]) -> dict[str, str] | None:
    metadata = fields.get("metadata")
    if metadata is None:
        return None
    is_valid = isinstance(metadata, dict) and len(metadata) <= MAX_PAIRS
    if not is_valid or not all(is_pair(name, value) for name, value in metadata.items()):
        problem = f"must be an object of up to {MAX_PAIRS} strings: names of {MAX_NAME_LENGTH} characters, values of"
        raise invalid_value_error("metadata", f"{problem} {MAX_VALUE_LENGTH}")
    return dict(metadata)


def is_pair(name: str, value: Any) -> bool:
    return len(name) <= MAX_NAME_LENGTH and isinstance(value, str) and len(value) <= MAX_VALUE_LENGTH


def read_ttl(fields: Mapping[str, Any]) -> int:
    """Seconds for which the results are kept, 0 for as long as other files."""
    wanted = fields.get("output_expires_after")
    if wanted is None:
        return 0
    seconds = wanted.get("seconds") if isinstance(wanted, dict) else None
    is_valid = isinstance(wanted, dict) and wanted.get("anchor") == "created_at" and type(seconds) is int
    if not is_valid or not MIN_TTL_SECONDS <= int(seconds or 0) <= MAX_TTL_SECONDS:
        bounds = f"{MIN_TTL_SECONDS} to {MAX_TTL_SECONDS}"
        raise invalid_value_error("output_expires_after", f"must have the anchor created_at, and {bounds} seconds")
    return int(seconds or 0)


def invalid_value_error(name: str, problem: str) -> ApiError:
    return ApiError(400, "invalid_value", f"'{name}' {problem}.", param=name)
