"""How gunicorn reads HTTP: limits, and which headers it interprets by itself."""

from typing import Any

from shared.credentials.importing.secret_choice import MAX_TOKEN_LENGTH

#: Bytes of one header line: the longest refresh token that the store takes, as Bearer (`MAX_TOKEN_LENGTH`).
MAX_HEADER_BYTES = MAX_TOKEN_LENGTH + 64
#: Settings of gunicorn.
HTTP_OPTIONS: dict[str, Any] = {
    "limit_request_field_size": MAX_HEADER_BYTES,
    # By default gunicorn believes these headers of any peer on this host, and refuses requests in which they disagree.
    # web/server/client_address.py interprets what trusted proxies send.
    "secure_scheme_headers": {},
    "forwarder_headers": "",
}
