"""Errors of the file endpoints, in the words of OpenAI's API."""

from shared.errors import ApiError
from shared.files.file_record import BATCH
from shared.files.file_store import TooManyFiles


def file_not_found_error(file_id: str) -> ApiError:
    return ApiError(404, "file_not_found", f"No such File object: {file_id[:100]}", param="id")


def missing_field_error(name: str) -> ApiError:
    return ApiError(400, "missing_required_parameter", f"'{name}' is a required property", param=name)


def purpose_error(purpose: str) -> ApiError:
    message = f"'{purpose[:100]}' is not one of ['{BATCH}'] - 'purpose'"
    return ApiError(400, "invalid_purpose", message, param="purpose")


def expiry_error(name: str, problem: str) -> ApiError:
    return ApiError(400, "invalid_value", f"'{name}' {problem}", param=name)


def file_too_large_error(max_bytes: int) -> ApiError:
    return ApiError(413, "file_too_large", f"The file is too large: it may have {max_bytes} bytes.", param="file")


def quota_error(error: TooManyFiles) -> ApiError:
    return ApiError(400, "file_quota_exceeded", f"You have exceeded your file storage: {error}.", param="file")


def invalid_form_error(problem: str, status: int = 400) -> ApiError:
    return ApiError(status, "invalid_form", f"The form can't be read: {problem}.")
