"""Opens the files of a farm, as its settings say."""

from pathlib import Path

from redis import Redis

from shared.files.directory_store import DirectoryStore
from shared.files.file_store import FileBounds, Files
from shared.files.part_store import PartStore
from shared.files.threaded_store import ThreadedStore
from shared.files_url import parse_store_url
from shared.settings.schema import Settings

#: The directory of files in the data dir.
FOLDER = "files"
DAY_SECONDS = 86_400


def open_files(settings: Settings, redis: Redis) -> Files:
    """Connects to nothing, and makes no directory, before a file is stored."""
    bounds = FileBounds(settings.files_bytes, settings.files_count, settings.files_ttl * DAY_SECONDS)
    return Files(redis, ThreadedStore(open_store(settings)), bounds)


def open_store(settings: Settings) -> PartStore:
    if not settings.files_url:
        return DirectoryStore(Path(settings.data_dir) / FOLDER)
    return DirectoryStore(Path(parse_store_url(settings.files_url).directory))
