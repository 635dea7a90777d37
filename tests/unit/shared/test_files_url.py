"""URLs of the store of files."""

import pytest

from shared.files_url import InvalidFilesUrl, StoreUrl, parse_store_url
from shared.settings.parsers import InvalidSecret
from shared.settings.url_parsers import parse_files_url

S3 = "s3://id:s%2Fcret@bucket/a/b/?endpoint=http://minio:9000&region=eu"


def test_url_of_a_directory() -> None:
    assert parse_store_url("file:///var/lib/my%20farm") == StoreUrl(directory="/var/lib/my farm")


def test_url_of_a_bucket() -> None:
    assert parse_store_url(S3) == StoreUrl("", "bucket", "a/b/", "http://minio:9000", "eu", "id", "s/cret")
    assert parse_store_url("s3://bucket") == StoreUrl(bucket="bucket")


def test_secret_is_not_in_the_repr() -> None:
    assert "s/cret" not in repr(parse_store_url(S3))


@pytest.mark.parametrize(
    "url",
    [
        *("/var/lib", "http://bucket", "file://host/path", "file:relative", "file:///a?b=c", "file:///a#b", "s3://"),
        *("s3://[", "s3://a b", "s3://id@bucket", "s3://:secret@bucket", "s3://bucket?endpont=x", "s3://bucket?region"),
    ],
)
def test_url_that_names_no_store_is_refused(url: str) -> None:
    with pytest.raises(InvalidFilesUrl):
        parse_store_url(url)


def test_setting_takes_what_names_a_store() -> None:
    assert [parse_files_url(url) for url in ("", f" {S3} ")] == ["", S3]


@pytest.mark.parametrize("url", ["s3://id:passw0rd@", "s3://id:passw0rd@bucket?endpoint=passw0rd"])
def test_error_of_the_setting_does_not_repeat_it(url: str) -> None:
    with pytest.raises(InvalidSecret) as caught:
        parse_files_url(url)
    assert "passw0rd" not in str(caught.value)
