"""`./farm export` and `import`: credentials, API keys, admin tokens and farm.toml in one encrypted file."""

import json
import os
import sys
import time
from collections import Counter
from typing import Any, BinaryIO

import click
from redis import Redis

from launcher.backup_encryption import decrypt, encrypt
from launcher.caller_paths import from_caller
from launcher.output import say
from launcher.store import noted, one_line_errors, open_store
from launcher.token_export import TokenReader
from shared import keys
from shared.credentials.records import STATES
from shared.credentials.store import Credentials
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.redis_connection.client import decode_hash
from shared.settings.loading import settings_file

#: Hashes that are taken over field by field, those that are there already left alone: what they hold of each.
RECORDS = {keys.API_KEYS: "API keys", keys.API_KEY_IDS: "", keys.ADMIN_TOKENS: "admin tokens"}
#: Seconds within which running requests should end, so that their credentials are free.
PATIENCE = 60.0
#: A key's quota, as far as it is used.
QUOTA = ("period", "tokens", "requests")
with_passphrase = click.option(
    "--passphrase-file", type=click.File("r"), help="Read the passphrase from FILE ('-' for standard input)."
)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--move", is_flag=True, help="Disable the credentials here, so that none rotates after it was exported.")
@with_passphrase
@one_line_errors
def export(file: str, move: bool, passphrase_file: Any) -> None:
    """Write credentials, keys, admin tokens and farm.toml to FILE ('-' for standard output), encrypted."""
    settings, redis = open_store()
    phrase = passphrase(passphrase_file, confirm=True)
    pools = settings.pool_names
    store = Credentials(redis)
    before = {one.id: {"state": one.state, "reason": one.reason} for one in store.list(pools)}
    if move:
        take_out_of_service(store, pools)
    found = [{**one, **before.get(one["id"], {})} for one in TokenReader(redis, load_unsealer(settings)).all(pools)]
    content = {"credentials": found, "records": records(redis), "quotas": quotas(redis), "farm_toml": farm_toml()}
    sealed = encrypt(json.dumps({**content, "exported_at": time.time()}).encode(), phrase)
    with opened(file) as out:
        out.write(sealed)
    store.record_export(one["id"] for one in found)
    noted(redis, "farm.export", file, {"credentials": len(found), "move": move})
    print(f"farm: {len(found)} credentials exported" + ("; they are disabled here" if move else ""), file=sys.stderr)


@click.command(name="import")
@click.argument("file", type=click.Path(allow_dash=True))
@with_passphrase
@one_line_errors
def import_(file: str, passphrase_file: Any) -> None:
    """Take over what `export` wrote to FILE; what is here already stays as it is."""
    settings, redis = open_store()
    sealed = sys.stdin.buffer.read() if file == "-" else from_caller(file).read_bytes()
    content = json.loads(decrypt(sealed, passphrase(passphrase_file, confirm=False)))
    counts = add_records(redis, content["records"], content["quotas"])
    pools = set(settings.pool_names)
    counts.update(add_credentials(Credentials(redis), content["credentials"], pools))
    noted(redis, "farm.import", file, dict(counts))
    for name, count in counts.items():
        say(f"{count} {name}")
    keep_settings(content["farm_toml"])


def take_out_of_service(store: Credentials, pools: list[str]) -> None:
    """Disables every credential, and waits until no worker has one, so that no token rotates any more."""
    for one in store.list(pools):
        store.set_state(one.pool, one.id, "disabled", "moved to another farm")
    until = time.monotonic() + PATIENCE
    while any(one.owner for one in store.list(pools)):
        if time.monotonic() > until:
            raise FarmError("workers still use credentials; they are disabled, so try again when their requests end")
        time.sleep(0.2)


def passphrase(file: Any, *, confirm: bool) -> str:
    """From the file, else asked for without echo: never from the command line, which others can see."""
    if file is not None:
        return str(file.readline()).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise FarmError("there is no terminal to ask for the passphrase: give --passphrase-file")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


def opened(file: str) -> BinaryIO:
    """A new file for its owner only, or standard output. Raises FileExistsError."""
    if file == "-":
        return sys.stdout.buffer
    return os.fdopen(os.open(from_caller(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def records(redis: Redis) -> dict[str, dict[str, str]]:
    """Keys and admin tokens: digests and records, no secret in them."""
    return {name: decode_hash(redis.hgetall(name)) for name in RECORDS}


def quotas(redis: Redis) -> dict[str, dict[str, str]]:
    """What each key has used of its quota; what was reserved for requests that run stays behind."""
    found = {}
    for key_id in redis.hkeys(keys.API_KEY_IDS):
        used = redis.hmget(keys.quota(key_id.decode()), QUOTA)
        found[key_id.decode()] = {n: v.decode() for n, v in zip(QUOTA, used, strict=True) if v is not None}
    return {key_id: used for key_id, used in found.items() if used}


def farm_toml() -> str:
    """The text of the file of settings, '' for none."""
    path = settings_file()
    return path.read_text() if path.exists() else ""


def add_records(redis: Redis, found: dict[str, dict[str, str]], used: dict[str, dict[str, str]]) -> Counter[str]:
    """Keys and admin tokens that are not here yet, with what their quota was used for."""
    counts: Counter[str] = Counter()
    for name, kind in RECORDS.items():
        for place, value in found.get(name, {}).items():
            is_new = redis.hsetnx(name, place, value)
            if kind:
                counts[f"{kind} added" if is_new else f"{kind} known already"] += 1
    for key_id, values in used.items():
        if values and not redis.exists(keys.quota(key_id)):
            redis.hset(keys.quota(key_id), mapping=values)
    return counts


def add_credentials(store: Credentials, found: list[dict[str, Any]], pools: set[str]) -> Counter[str]:
    """Credentials that are not here yet, as they were; those of a pool that is not configured here are left out."""
    counts: Counter[str] = Counter()
    for one in found:
        if one["pool"] not in pools:
            counts[f"credentials left out: there is no pool {one['pool']} here; import again when there is"] += 1
            continue
        credential_id, is_new = store.add(one["pool"], one["refresh_token"], one["label"], one["id"])
        counts["credentials added" if is_new else "credentials known already"] += 1
        if is_new and one["state"] in STATES and one["state"] not in ("active", "cooling"):
            store.force_state(one["pool"], credential_id, one["state"], one["reason"])
    return counts


def keep_settings(text: str) -> None:
    """The other farm's farm.toml, when there is none here; else it is said where the two differ from each other."""
    path = settings_file()
    if not text or (path.exists() and path.read_text() == text):
        return
    if path.exists():
        say(f"{path} differs from the other farm's, and was left as it is")
        return
    path.touch(mode=0o600)
    path.write_text(text)
    say(f"{path} written: `./farm restart`, then import again for credentials of its pools")
