"""What failed requests say about one credential since its last success. No I/O.

One failure says little: it may be the request's fault. So it pauses nothing. Several requests that fail pause the
credential briefly. Those that others then served are proof, and let the cooldown grow.
"""

#: Requests that must fail before the credential pauses without proof.
MIN_FAILURES = 2
#: Longest cooldown in seconds without proof; and while all failures are one API key's and other keys are served:
#: then its requests may well be at fault.
MAX_UNPROVEN_SECONDS = 4.0
MAX_ONE_KEY_SECONDS = 0.5
#: Failed requests that must have been served elsewhere before a cooldown may be longer than that.
MIN_PROOFS = 2
#: How often in a row a culprit's failure leaves the credential credible before it has to serve a request again.
MAX_EXONERATIONS = 2
#: Failed requests remembered.
MAX_FAILURES = 100


class Suspicion:
    """The open evidence against one credential, shared by the workers of its slots."""

    def __init__(self) -> None:
        #: Failed request -> its API key, oldest first.
        self._failures: dict[str, str] = {}
        #: Those of them that another credential has served.
        self._proofs: set[str] = set()
        #: Whether nothing has failed here since the last success, so that a failure counts against its request.
        self.is_credible = True
        self._exonerations = 0

    def record_failure(self, request_id: str, key: str) -> None:
        self.is_credible = False
        self._failures[request_id] = key
        if len(self._failures) > MAX_FAILURES:
            oldest = next(iter(self._failures))
            self.clear(oldest)

    def record_success(self) -> None:
        """A request was served: what failed before is no evidence any more."""
        self.is_credible = True
        self._exonerations = 0
        if self._failures:
            self.clear_all()

    def clear_all(self) -> None:
        """Everything that has failed was the upstream's fault."""
        self._failures.clear()
        self._proofs.clear()

    def clear(self, request_id: str) -> None:
        """Forgets a request's failure."""
        self._failures.pop(request_id, None)
        self._proofs.discard(request_id)

    def exonerate(self, request_id: str) -> None:
        """The request has turned out to be at fault itself.

        So its failure leaves the credential as credible as before; else the next culprit, whose retries come first,
        would find none that counts as a witness, and every credential that it tries would stay paused.
        """
        was_only_failure = list(self._failures) == [request_id]
        self.clear(request_id)
        if was_only_failure and self._exonerations < MAX_EXONERATIONS:
            self._exonerations += 1
            self.is_credible = True

    def convict(self, request_id: str) -> bool:
        """The request was served elsewhere. Returns whether it is still evidence: no success has come since."""
        if request_id not in self._failures:
            return False
        self._proofs.add(request_id)
        return True

    def find_max_cooldown(self, *, are_others_served: bool) -> float:
        """Longest cooldown in seconds that the evidence justifies, 0 for none; inf leaves it to the kind of failure.

        `are_others_served`: whether requests of other API keys than the failed ones have been served lately.
        """
        if len(self._proofs) >= MIN_PROOFS:
            return float("inf")
        if not self._proofs and len(self._failures) < MIN_FAILURES:
            return 0.0
        if not self._proofs and are_others_served:
            return MAX_ONE_KEY_SECONDS
        return MAX_UNPROVEN_SECONDS

    @property
    def has_proof(self) -> bool:
        """Whether another credential has served what failed here."""
        return bool(self._proofs)

    @property
    def keys(self) -> set[str]:
        """The API keys of the failed requests."""
        return set(self._failures.values())
