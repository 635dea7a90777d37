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
from launcher.caller_paths import resolve_path
from launcher.output import print_line
from launcher.store import exit_on_error, open_store, record_change
from launcher.token_export import TokenReader
from shared import keys
from shared.credentials.records import STATES
from shared.credentials.store import Credentials
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.redis_connection.client import decode_hash
from shared.settings.loading import find_settings_file

#: Hashes that are taken over field by field, those that are there already left alone: what they hold of each.
COPIED_HASHES = {keys.API_KEYS: "API keys", keys.API_KEY_IDS: "", keys.ADMIN_TOKENS: "admin tokens"}
#: Seconds within which running requests should end, so that their credentials are free.
DRAIN_TIMEOUT_SECONDS = 60.0
#: A key's quota, as far as it is used.
QUOTA_FIELDS = ("period", "tokens", "requests")
passphrase_option = click.option(
    "--passphrase-file", type=click.File("r"), help="Read the passphrase from FILE ('-' for standard input)."
)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--move", is_flag=True, help="Disable the credentials here, so that none rotates after it was exported.")
@passphrase_option
@exit_on_error
def export(file: str, move: bool, passphrase_file: Any) -> None:
    """Write credentials, keys, admin tokens and farm.toml to FILE ('-' for standard output), encrypted."""
    settings, redis = open_store()
    phrase = read_passphrase(passphrase_file, confirm=True)
    pools = settings.pool_names
    store = Credentials(redis)
    before = {one.id: {"state": one.state, "reason": one.reason} for one in store.list(pools)}
    if move:
        disable_all(store, pools)
    found = [{**one, **before.get(one["id"], {})} for one in TokenReader(redis, load_unsealer(settings)).all(pools)]
    content = {
        "credentials": found,
        "records": read_records(redis),
        "quotas": read_quotas(redis),
        "farm_toml": read_settings_file(),
    }
    sealed = encrypt(json.dumps({**content, "exported_at": time.time()}).encode(), phrase)
    with open_output(file) as out:
        out.write(sealed)
    store.record_export(one["id"] for one in found)
    record_change(redis, "farm.export", file, {"credentials": len(found), "move": move})
    print(f"farm: {len(found)} credentials exported" + ("; they are disabled here" if move else ""), file=sys.stderr)


@click.command(name="import")
@click.argument("file", type=click.Path(allow_dash=True))
@passphrase_option
@exit_on_error
def import_(file: str, passphrase_file: Any) -> None:
    """Take over what `export` wrote to FILE; what is here already stays as it is."""
    settings, redis = open_store()
    sealed = sys.stdin.buffer.read() if file == "-" else resolve_path(file).read_bytes()
    content = json.loads(decrypt(sealed, read_passphrase(passphrase_file, confirm=False)))
    counts = add_records(redis, content["records"], content["quotas"])
    pools = set(settings.pool_names)
    counts.update(add_credentials(Credentials(redis), content["credentials"], pools))
    record_change(redis, "farm.import", file, dict(counts))
    for name, count in counts.items():
        print_line(f"{count} {name}")
    write_settings_file(content["farm_toml"])


def disable_all(store: Credentials, pools: list[str]) -> None:
    """Disables every credential, and waits until no worker has one, so that no token rotates any more."""
    for one in store.list(pools):
        store.set_state(one.pool, one.id, "disabled", "moved to another farm")
    until = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    while any(one.owner for one in store.list(pools)):
        if time.monotonic() > until:
            raise FarmError("workers still use credentials; they are disabled, so try again when their requests end")
        time.sleep(0.2)


def read_passphrase(file: Any, *, confirm: bool) -> str:
    """From the file, else asked for without echo: never from the command line, which others can see."""
    if file is not None:
        return str(file.readline()).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise FarmError("there is no terminal to ask for the passphrase: give --passphrase-file")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


def open_output(file: str) -> BinaryIO:
    """A new file for its owner only, or standard output. Raises FileExistsError."""
    if file == "-":
        return sys.stdout.buffer
    return os.fdopen(os.open(resolve_path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def read_records(redis: Redis) -> dict[str, dict[str, str]]:
    """Keys and admin tokens: digests and records, no secret in them."""
    return {name: decode_hash(redis.hgetall(name)) for name in COPIED_HASHES}


def read_quotas(redis: Redis) -> dict[str, dict[str, str]]:
    """What each key has used of its quota; what was reserved for requests that run stays behind."""
    found = {}
    for key_id in redis.hkeys(keys.API_KEY_IDS):
        used = redis.hmget(keys.quota(key_id.decode()), QUOTA_FIELDS)
        found[key_id.decode()] = {n: v.decode() for n, v in zip(QUOTA_FIELDS, used, strict=True) if v is not None}
    return {key_id: used for key_id, used in found.items() if used}


def read_settings_file() -> str:
    """The text of the file of settings, '' for none."""
    path = find_settings_file()
    return path.read_text() if path.exists() else ""


def add_records(redis: Redis, found: dict[str, dict[str, str]], used: dict[str, dict[str, str]]) -> Counter[str]:
    """Keys and admin tokens that are not here yet, with what their quota was used for."""
    counts: Counter[str] = Counter()
    for name, kind in COPIED_HASHES.items():
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


def write_settings_file(text: str) -> None:
    """The other farm's farm.toml, when there is none here; else it is said where the two differ from each other."""
    path = find_settings_file()
    if not text or (path.exists() and path.read_text() == text):
        return
    if path.exists():
        print_line(f"{path} differs from the other farm's, and was left as it is")
        return
    path.touch(mode=0o600)
    path.write_text(text)
    print_line(f"{path} written: `./farm restart`, then import again for credentials of its pools")
