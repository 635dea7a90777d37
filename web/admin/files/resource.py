"""Admin API: lists, shows and deletes the files of all API keys; their content is only their callers'."""

from collections.abc import Sequence

from shared import keys
from shared.errors import ApiError
from shared.files.file_record import FileRecord
from shared.files.file_store import FileNotFound
from shared.files.key_storage import list_storage
from shared.observability.names_by_id import find_key_names
from web.admin.api import router
from web.admin.audit_log import record_change
from web.admin.files.schemas import File, FilePage, FileQuery, KeyStorage, StorageList, StorageQuery
from web.services import services


@router.route("GET", "/files", query=FileQuery, response=FilePage, errors=(404,))
def list_files(query: FileQuery) -> FilePage:
    """List the files of all API keys, newest first."""
    files, key = services().files, query.key or None
    try:
        found = files.list(key, query.cursor, query.limit + 1, purpose=query.purpose)
    except FileNotFound:
        raise ApiError(404, "not_found", "the cursor's entry no longer exists", param="cursor") from None
    page = found[: query.limit]
    index = keys.files(key) if key else keys.FILES
    return FilePage(
        data=to_schemas(page),
        next=page[-1].id if len(found) > query.limit else None,
        total=services().redis.zcard(index),
    )


@router.route("GET", "/files/<file_id>", response=File)
def get_file(file_id: str) -> File:
    """Get a file's record."""
    return to_schemas([get_or_404(file_id)])[0]


@router.route("DELETE", "/files/<file_id>", status=204)
def remove_file(file_id: str) -> None:
    """Delete a file and its content."""
    record = get_or_404(file_id)
    services().files.delete(record)
    record_change("file.remove", file_id, {"key": record.key, "filename": record.filename})


@router.route("GET", "/file-storage", query=StorageQuery, response=StorageList)
def list_key_storage(query: StorageQuery) -> StorageList:
    """List what API keys store, those with most bytes first."""
    found, bounds = list_storage(services().redis, query.limit), services().files.bounds
    names = find_key_names(services().redis, {each.key for each in found})
    return StorageList(
        data=[
            KeyStorage(**vars(each), key_name=names.get(each.key, ""), share=each.share_of(bounds)) for each in found
        ],
        max_bytes=bounds.max_bytes,
        max_files=bounds.max_files,
    )


def get_or_404(file_id: str) -> FileRecord:
    """Raises ApiError 404."""
    record = services().files.find(file_id)
    if record is None:
        raise ApiError(404, "not_found", f"no file {file_id!r}")
    return record


def to_schemas(records: Sequence[FileRecord]) -> list[File]:
    names = find_key_names(services().redis, {record.key for record in records})
    return [File(**record.describe_for_operators(names.get(record.key, ""))) for record in records]
