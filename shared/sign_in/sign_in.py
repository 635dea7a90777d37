"""A sign-in as operators see it, from its start to the credential that it has added.

The hash `farm:sign-in:<id>` has the fields of SignIn and these; `secrets` and `answer` are sealed for the sign-in:

| field | meaning | written by |
| --- | --- | --- |
| redirect_uri | where the authorization server sends the browser, '' for the device grant | sign_ins.py |
| secrets | what a worker process keeps: PKCE verifier, nonce, device code | workers/sign_in |
| oauth_state | SHA-256 of the `state` of the authorization request | workers/sign_in |
| answer | the parameters with which the browser came back; taken once | submit_answer.lua |
"""

import hashlib
from dataclasses import asdict, dataclass
from typing import Any, Literal

#: Way of signing in: a browser that is sent back (RFC 6749 section 4.1), or a code for another device (RFC 8628).
Flow = Literal["browser", "device"]
State = Literal["pending", "done", "failed", "expired"]
FLOWS: tuple[Flow, ...] = ("browser", "device")
#: Path of the front to which a browser is sent back.
CALLBACK_PATH = "/admin/sign-in/callback"
#: Kinds of credential operation by which a worker process begins a sign-in, and goes on with it.
BEGIN_OPERATION, ANSWER_OPERATION = "sign_in", "sign_in_answer"


@dataclass(frozen=True)
class SignIn:
    """One sign-in. Times are seconds since the epoch."""

    id: str
    pool: str
    flow: str
    state: str = "pending"
    created_at: float = 0
    expires_at: float = 0
    #: Page to open, '' until a worker process has found it.
    url: str = ""
    #: Code to type there, in the device flow.
    user_code: str = ""
    #: Label of the new credential.
    label: str = ""
    #: Why it failed, as a code and as a sentence without secrets.
    error: str = ""
    message: str = ""
    #: The credential that has the account now, and whether it was `added`, or `replaced` the token of a known account.
    credential_id: str = ""
    outcome: str = ""
    #: E-mail address or name of the account, masked.
    account: str = ""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def hash_state(state: str) -> str:
    """What is stored of the `state` parameter, which admits whoever knows it to the callback."""
    return hashlib.sha256(state.encode()).hexdigest()
