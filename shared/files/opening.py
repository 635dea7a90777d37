"""Opens the files of a farm, as its settings say."""

import importlib
from pathlib import Path
from typing import cast

from redis import Redis

from shared.errors import SettingsError
from shared.files.directory_store import DirectoryStore
from shared.files.file_store import FileBounds, Files
from shared.files.part_store import PartStore
from shared.files.threaded_store import ThreadedStore
from shared.files.watched_store import WatchedStore
from shared.files_url import StoreUrl, parse_store_url
from shared.settings.schema import Settings

#: The directory of files in the data dir.
FOLDER = "files"
DAY_SECONDS = 86_400


def open_files(settings: Settings, redis: Redis) -> Files:
    """Connects to nothing, and makes no directory, before a file is stored. Raises SettingsError."""
    bounds = FileBounds(settings.files_bytes, settings.files_count, settings.files_ttl * DAY_SECONDS)
    return Files(redis, ThreadedStore(open_store(settings)), bounds)


def open_watched_files(settings: Settings, redis: Redis) -> Files:
    """As `open_files`, and operators are told of failures of the store. A command tells its user of them."""
    files = open_files(settings, redis)
    files.store = WatchedStore(files.store, redis)
    return files


def open_store(settings: Settings) -> PartStore:
    """Raises SettingsError."""
    if not settings.files_url:
        return DirectoryStore(Path(settings.data_dir) / FOLDER)
    url = parse_store_url(settings.files_url)
    return DirectoryStore(Path(url.directory)) if url.directory else open_bucket(url)


def open_bucket(url: StoreUrl) -> PartStore:
    """Loads the client for S3 only where it is asked for. Raises SettingsError."""
    try:
        return cast("PartStore", importlib.import_module("shared.files.s3_store").BucketStore(url))
    except ModuleNotFoundError:
        message = "FARM_FILES_URL: the client for S3 is not installed: pip install -r requirements-s3.lock"
        raise SettingsError(message) from None
    except ValueError as error:
        raise SettingsError(f"FARM_FILES_URL: {error}") from None
