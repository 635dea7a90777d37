"""Names of API keys and credentials by their ids, which lists show beside the ids."""

from collections.abc import Collection

from redis import Redis

from shared import keys
from shared.api_keys.api_key import ApiKey
from shared.credentials.records import mask_account
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
    """Credential id -> its label, else its account, masked, else ''; ids that no credential has are left out."""
    found: dict[str, str] = {}
    for batch in split(ids):
        with redis.pipeline(transaction=False) as pipe:
            for credential_id in batch:
                pipe.hmget(keys.credential(credential_id), "pool", "label", "account")
            replies = pipe.execute()
        for credential_id, (pool, label, account) in zip(batch, replies, strict=True):
            if pool:
                found[credential_id] = (label or b"").decode() or mask_account((account or b"").decode())
    return found


def split(ids: Collection[str]) -> list[list[str]]:
    """The different ids, without those that name nothing, in batches."""
    wanted = sorted({each for each in ids if each not in ("", "-")})
    return [wanted[start : start + BATCH] for start in range(0, len(wanted), BATCH)]
