"""Failed requests are evidence against a credential only as far as they can be."""

from workers.credentials.suspicion import (
    MAX_EXONERATIONS,
    MAX_ONE_KEY_SECONDS,
    MAX_UNPROVEN_SECONDS,
    MIN_PROOFS,
    Suspicion,
)


def max_cooldown(suspicion: Suspicion, *, are_others_served: bool = False) -> float:
    return suspicion.find_max_cooldown(are_others_served=are_others_served)


def fail(suspicion: Suspicion, count: int) -> None:
    for number in range(count):
        suspicion.record_failure(f"r{number}", "k1")


def test_one_failed_request_pauses_nothing_however_often_it_fails():
    suspicion = Suspicion()
    for _ in range(3):
        suspicion.record_failure("r1", "k1")
    assert max_cooldown(suspicion) == 0


def test_several_failed_requests_pause_briefly():
    suspicion = Suspicion()
    fail(suspicion, 9)
    assert max_cooldown(suspicion) == MAX_UNPROVEN_SECONDS
    assert max_cooldown(suspicion, are_others_served=True) == MAX_ONE_KEY_SECONDS


def test_requests_that_others_serve_are_proof():
    suspicion = Suspicion()
    fail(suspicion, MIN_PROOFS)
    assert suspicion.convict("r0")
    assert max_cooldown(suspicion) == MAX_UNPROVEN_SECONDS
    for number in range(MIN_PROOFS):
        suspicion.convict(f"r{number}")
    assert max_cooldown(suspicion, are_others_served=True) == float("inf")


def test_culprits_are_no_evidence():
    suspicion = Suspicion()
    fail(suspicion, 3)
    for number in range(3):
        suspicion.exonerate(f"r{number}")
    assert max_cooldown(suspicion) == 0


def test_culprit_leaves_a_credential_as_credible_as_before():
    suspicion = Suspicion()
    fail(suspicion, 1)
    suspicion.exonerate("r0")
    assert suspicion.is_credible
    fail(suspicion, 2)
    suspicion.exonerate("r1")
    assert not suspicion.is_credible  # r0 is still open.


def test_credential_that_never_serves_is_not_exonerated_again_and_again():
    suspicion = Suspicion()
    for _ in range(MAX_EXONERATIONS):
        fail(suspicion, 1)
        suspicion.exonerate("r0")
        assert suspicion.is_credible
    fail(suspicion, 1)
    suspicion.exonerate("r0")
    assert not suspicion.is_credible
    suspicion.record_success()
    fail(suspicion, 1)
    suspicion.exonerate("r0")
    assert suspicion.is_credible


def test_success_clears_the_evidence_and_makes_credible():
    suspicion = Suspicion()
    fail(suspicion, 3)
    assert not suspicion.is_credible
    suspicion.record_success()
    assert suspicion.is_credible
    assert max_cooldown(suspicion) == 0
    assert not suspicion.convict("r0")


def test_evidence_is_bounded():
    suspicion = Suspicion()
    fail(suspicion, 10_000)
    assert not suspicion.convict("r0")
    assert suspicion.convict("r9999")
