"""ETags and If-Match for records (RFC 9110 sections 8.8.3 and 13.1.1)."""

import hashlib

from flask import Response, request

from shared.errors import ApiError


def set_etag(response: Response, version: object) -> Response:
    """Sets the ETag to a hash of the record's version."""
    response.set_etag(hashlib.sha256(str(version).encode()).hexdigest()[:20])
    return response


def check_if_match(version: object) -> None:
    """Raises ApiError 412 if the request's If-Match names another version of the record."""
    expected = hashlib.sha256(str(version).encode()).hexdigest()[:20]
    if request.if_match and not request.if_match.contains(expected) and not request.if_match.star_tag:
        raise ApiError(412, "version_conflict", "the record has changed since it was read")
