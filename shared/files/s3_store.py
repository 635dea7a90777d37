"""Parts as objects in a bucket of S3, or of a store that speaks its API.

obstore, which is Rust, releases Python's interpreter lock and needs no socket of Python's: nothing in it is patched by
gevent. It is installed only where a bucket is configured (requirements-s3.lock), so opening.py loads this module.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from obstore.exceptions import BaseError
from obstore.store import S3Store

from shared.files.part_store import FileStoreDown, FileStoreFull, PartNotFound, StoredPart
from shared.files_url import StoreUrl

if TYPE_CHECKING:
    from obstore import GetOptions
    from obstore.store import ClientConfig, S3Config

#: A part takes a fraction of a second; a store that does not respond is tried again for a while, then an error.
CONNECT_SECONDS, REQUEST_SECONDS, MAX_RETRIES, RETRY_SECONDS = 5, 30, 3, 20
#: Codes of the API for a bucket or an account without room (MinIO, Ceph).
FULL_CODES = ("QuotaExceeded", "XMinioStorageFull", "InsufficientStorage", "507")
#: Objects listed at a time.
LISTED_AT_ONCE = 1000


class BucketStore:
    """Blocks; ThreadedStore keeps that from an event loop."""

    def __init__(self, url: StoreUrl) -> None:
        """Without an id and a secret, those of the environment (AWS_ACCESS_KEY_ID, …) or the machine's role count."""
        config: S3Config = {"virtual_hosted_style_request": not url.endpoint}
        if url.endpoint:
            config["endpoint"] = url.endpoint
        if url.region or url.endpoint:
            config["region"] = url.region or "us-east-1"
        if url.access_key_id:
            config |= {"access_key_id": url.access_key_id, "secret_access_key": url.secret_access_key}
        self._prefix = url.prefix
        self._store = S3Store(
            url.bucket,
            prefix=url.prefix or None,
            config=config,
            client_options=build_client_options(url),
            retry_config={"max_retries": MAX_RETRIES, "retry_timeout": timedelta(seconds=RETRY_SECONDS)},
        )

    def put(self, name: str, data: bytes) -> None:
        try:
            with map_errors(name):
                self._store.put(name, data, use_multipart=False)
        except PartNotFound:
            raise FileStoreDown("the bucket of files does not exist") from None

    def get(self, name: str, start: int = 0, end: int | None = None) -> bytes:
        with map_errors(name):
            if end is not None:
                return bytes(self._store.get_range(name, start=start, end=end))
            options: GetOptions = {"range": {"offset": start}} if start else {}
            return bytes(self._store.get(name, options=options).bytes())

    def delete(self, name: str) -> None:
        with suppress(PartNotFound), map_errors(name):
            self._store.delete(name)

    def list(self, prefix: str = "") -> Iterator[StoredPart]:
        """obstore's prefixes are whole folders, so the rest of it is compared here."""
        folder = prefix.rpartition("/")[0]
        with map_errors(prefix):
            for objects in self._store.list(folder or None, chunk_size=LISTED_AT_ONCE):
                for found in objects:
                    if found["path"].startswith(prefix):
                        yield StoredPart(found["path"], found["last_modified"].timestamp())


def build_client_options(url: StoreUrl) -> "ClientConfig":
    return {
        "allow_http": url.endpoint.startswith("http://"),
        "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
        "timeout": timedelta(seconds=REQUEST_SECONDS),
    }


@contextmanager
def map_errors(name: str) -> Iterator[None]:
    """Raises PartNotFound, FileStoreDown or FileStoreFull for an error of obstore's.

    Messages have a first line for people, and then all that Rust knows.
    """
    try:
        yield
    except FileNotFoundError:
        raise PartNotFound(name) from None
    except (BaseError, OSError) as error:
        text = str(error)
        kind = FileStoreFull if any(code in text for code in FULL_CODES) else FileStoreDown
        raise kind(f"the bucket of files: {text.partition(chr(10))[0]}") from None
