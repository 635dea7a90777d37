"""Why a sign-in ends without a credential."""

from shared.errors import FarmError


class SignInFailed(FarmError):
    """Raised when a sign-in has failed for good. Neither code nor message contains a secret."""

    def __init__(self, code: str, message: str, state: str = "failed") -> None:
        super().__init__(message)
        #: A code of OAuth, or one of ours: docs/errors.md lists them.
        self.code = code
        #: `failed` or `expired`.
        self.state = state
