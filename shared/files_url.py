"""URLs of the store of files: `file:///directory`, `s3://[id:secret@]bucket[/prefix][?endpoint=URL&region=NAME]`."""

import re
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

#: A bucket's name; other stores than Amazon's take underscores and capitals.
BUCKET = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,62}")
OPTIONS = ("endpoint", "region")


class InvalidFilesUrl(ValueError):
    """Raised for a URL that names no store; the message doesn't repeat it."""


@dataclass(frozen=True)
class StoreUrl:
    """What a URL names: a directory, or a bucket."""

    directory: str = ""
    bucket: str = ""
    #: Begins all names in the bucket: '' or `folder/`.
    prefix: str = ""
    #: Base URL of the S3 API; '' for Amazon's.
    endpoint: str = ""
    region: str = ""
    #: '' for those of the environment, or of the machine's role.
    access_key_id: str = ""
    secret_access_key: str = field(default="", repr=False)


def parse_store_url(url: str) -> StoreUrl:
    """Raises InvalidFilesUrl."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise InvalidFilesUrl("is no valid URL") from None
    if parts.fragment:
        raise InvalidFilesUrl("must not contain a fragment (#); in a path or password it is written %23")
    if parts.scheme == "s3":
        return parse_bucket_url(parts)
    if parts.scheme != "file":
        raise InvalidFilesUrl("must begin with file:// or s3://")
    if parts.netloc or not parts.path.startswith("/") or parts.query:
        raise InvalidFilesUrl("must be file:// and an absolute path: file:///var/lib/farm/files")
    return StoreUrl(directory=unquote(parts.path))


def parse_bucket_url(parts: SplitResult) -> StoreUrl:
    userinfo, _, bucket = parts.netloc.rpartition("@")
    access_key_id, _, secret = userinfo.partition(":")
    if not BUCKET.fullmatch(bucket):
        raise InvalidFilesUrl("has no valid name of a bucket")
    if bool(access_key_id) != bool(secret):
        raise InvalidFilesUrl("must have both an access key id and its secret before the @, or neither")
    options, folder = parse_options(parts.query), unquote(parts.path).strip("/")
    return StoreUrl(
        bucket=bucket,
        prefix=f"{folder}/" if folder else "",
        endpoint=options.get("endpoint", ""),
        region=options.get("region", ""),
        access_key_id=unquote(access_key_id),
        secret_access_key=unquote(secret),
    )


def parse_options(query: str) -> dict[str, str]:
    try:
        options = dict(parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query)))
    except ValueError:
        raise InvalidFilesUrl("has options that can't be read") from None
    if unknown := set(options) - set(OPTIONS):
        raise InvalidFilesUrl(f"has an unknown option {min(unknown)!r}: known are {', '.join(OPTIONS)}")
    return options
