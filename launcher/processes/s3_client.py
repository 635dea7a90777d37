"""The client for S3, fetched only when FARM_FILES_URL names a bucket, by the hash in its lock file."""

from collections.abc import Callable

from launcher.bootstrap import ROOT
from launcher.processes import locked_extra
from shared.files_url import parse_store_url
from shared.settings.schema import Settings

#: Of the extra `s3` alone; requirements.lock has what the farm needs without it.
LOCK_FILE = ROOT / "requirements-s3.lock"
PACKAGE = "obstore"


def ensure_s3_client(settings: Settings, print_line: Callable[[str], None]) -> None:
    """Installs the client if the settings need it and it is missing, or not the locked version. Raises FarmError."""
    if not settings.files_url or not parse_store_url(settings.files_url).bucket:
        return
    version = locked_extra.read_locked_version(LOCK_FILE, PACKAGE)
    if locked_extra.find_version(PACKAGE) != version:
        print_line(f"fetching {PACKAGE} {version} for files in S3 (this happens once)")
        locked_extra.install(LOCK_FILE, "the client for S3", "FARM_FILES_URL")
