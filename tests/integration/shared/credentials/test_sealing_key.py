"""Which key a farm seals with, and in which format."""

import time

import pytest
from redis import Redis

from shared import keys
from shared.credentials.sealing import VERSION_BYTE, Sealer
from shared.credentials.unsealing import Unsealer, derive, encode_public_key
from shared.errors import WrongSecretKey


def test_farm_with_a_short_key_that_was_not_stretched_keeps_its_key(redis: Redis):
    redis.set(keys.SEALING_KEY, encode_public_key(derive("short")))
    unsealer = Unsealer("short")
    unsealer.ensure_sealing_key(redis)
    sealed = Sealer.load(redis).seal("token", "id1")
    assert unsealer.unseal(sealed, "id1") == unsealer.unseal(unsealer.sealer.seal("token", "id1"), "id1") == "token"
    assert redis.get(keys.SEALING_KEY) == encode_public_key(derive("short"))


def test_new_farm_with_a_short_key_stretches_it_and_says_how_to_change_it(redis: Redis, caplog):
    unsealer = Unsealer("short")
    unsealer.ensure_sealing_key(redis)
    unsealer.warn_of_short_key()
    assert redis.get(keys.SEALING_KEY) == unsealer.public_keys[0] != encode_public_key(derive("short"))
    assert unsealer.unseal(Sealer.load(redis).seal("token", "id1"), "id1") == "token"
    assert [(record.action, "./farm rekey" in record.getMessage()) for record in caplog.records] == [("weak_key", True)]


def test_another_key_is_refused(redis: Redis):
    Unsealer("short").ensure_sealing_key(redis)
    with pytest.raises(WrongSecretKey, match="provide the right key"):
        Unsealer("other").ensure_sealing_key(redis)


def test_values_are_sealed_without_a_header_while_an_older_process_would_have_to_read_them(
    redis: Redis, unsealer: Unsealer
):
    assert Sealer.load(redis).seal("token", "id1")[:1] == VERSION_BYTE
    redis.zadd(keys.PROCESSES, {"older": time.time(), "newer": time.time()})
    redis.hset(keys.process("newer"), mapping={"capacity": 5, "sealing": 1})
    assert Sealer.load(redis).has_header
    redis.hset(keys.process("older"), mapping={"capacity": 5})
    sealer = Sealer.load(redis)
    assert not sealer.has_header
    assert unsealer.unseal(sealer.seal("token", "id1"), "id1") == "token"
