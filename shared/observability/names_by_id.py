"""Names of API keys and credentials by their ids, which lists show beside the ids."""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import Any

from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.credentials.records import build_name
from shared.decoding import parse_model

#: Ids per round trip.
BATCH = 1000


def find_key_names(redis: Redis, ids: Collection[str]) -> dict[str, str]:
    """API key id -> its name, '' for a key without one; ids that no key has are left out."""
    found: dict[str, str] = {}
    for batch in split(ids):
        digests = dict(zip(batch, redis.hmget(keys.API_KEY_IDS, batch), strict=True))
        known = {key_id: digest for key_id, digest in digests.items() if digest}
        records = redis.hmget(keys.API_KEYS, list(known.values())) if known else []
        for key_id, record in zip(known, records, strict=True):
            key = parse_model(ApiKey, record) if record else None
            if key is not None:
                found[key_id] = key.name
    return found


def find_credential_names(redis: Redis, ids: Collection[str]) -> dict[str, str]:
    """Credential id -> its label, else its account, masked, else ''; a removed one has the name that it had.

    Ids that no credential has, or had with a name, are left out.
    """
    found: dict[str, str] = {}
    for batch in split(ids):
        with redis.pipeline(transaction=False) as pipe:
            for credential_id in batch:
                pipe.hmget(keys.credential(credential_id), "pool", "label", "account")
            replies = pipe.execute()
        fields = dict(zip(batch, replies, strict=True))
        found |= {id_: build_name(label, account) for id_, (pool, label, account) in fields.items() if pool}
        if gone := [credential_id for credential_id in batch if credential_id not in found]:
            with redis.pipeline(transaction=False) as pipe:
                for credential_id in gone:
                    pipe.hget(keys.removed(credential_id), "name")
                former = pipe.execute()
            found |= {id_: name.decode() for id_, name in zip(gone, former, strict=True) if name}
    return found


def split(ids: Collection[str]) -> list[list[str]]:
    """The different ids, without those that name nothing, in batches."""
    wanted = sorted({each for each in ids if each not in ("", "-")})
    return [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]


def name_rows(redis: Redis, rows: Iterable[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Adds `key_name` beside each `key`, and `credential_name` beside each `credential`; looks up many at a time."""
    found: dict[str, dict[str, str]] = {name: {} for name in NAMED_FIELDS}
    remaining = iter(rows)
    while batch := list(islice(remaining, BATCH)):
        for name, find in NAMED_FIELDS.items():
            unknown = {row[name] for row in batch if name in row} - set(found[name])
            found[name] |= dict.fromkeys(unknown, "") | find(redis, unknown)
        yield from (add_names(row, found) for row in batch)


def add_names(row: Mapping[str, Any], found: Mapping[str, Mapping[str, str]]) -> dict[str, Any]:
    named: dict[str, Any] = {}
    for name, value in row.items():
        named[name] = value
        if name in found:
            named[f"{name}_name"] = found[name][value]
    return named


def name_columns(columns: Sequence[str]) -> tuple[str, ...]:
    """The columns of rows that `name_rows` has named; names go last, where programs do not count columns yet."""
    return (*columns, *(f"{name}_name" for name in columns if name in NAMED_FIELDS))


#: Field of a row that holds an id -> what finds the names of such ids.
NAMED_FIELDS = {"key": find_key_names, "credential": find_credential_names}
