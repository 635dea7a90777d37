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
from launcher.file_argument import resolve_path
from launcher.output import exit_on_error, print_line
from launcher.store import open_store, record_change
from launcher.token_export import export_tokens
from shared import keys
from shared.credentials.records import STATES
from shared.credentials.store import Credentials
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.redis_connection.client import decode_hash
from shared.settings.loading import find_settings_file

#: Hashes copied field by field, except for fields that already exist -> their name in the import's report, '' for none.
COPIED_HASHES = {keys.API_KEYS: "API keys", keys.API_KEY_IDS: "", keys.ADMIN_TOKENS: "admin tokens"}
#: Seconds that `export --move` waits for workers to release the credentials.
DRAIN_TIMEOUT_SECONDS = 60.0
#: Fields of a key's quota that are copied: its period and what was used.
QUOTA_FIELDS = ("period", "tokens", "requests")
passphrase_option = click.option(
    "--passphrase-file", type=click.File("r"), help="Read the passphrase from a file ('-' for standard input)."
)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--move", is_flag=True, help="Disable the credentials here, so that no token rotates after the export.")
@passphrase_option
@exit_on_error
def export(file: str, move: bool, passphrase_file: Any) -> None:
    """Write credentials, keys, admin tokens and farm.toml to FILE ('-' for standard output), encrypted."""
    settings, redis = open_store()
    passphrase = read_passphrase(passphrase_file, confirm=True)
    pools = settings.pool_names
    store = Credentials(redis)
    states = {record.id: {"state": record.state, "reason": record.reason} for record in store.list(pools)}
    if move:
        disable_all(store, pools)
    exported = export_tokens(redis, load_unsealer(settings), pools)
    credentials = [{**credential, **states.get(credential["id"], {})} for credential in exported]
    content = {
        "credentials": credentials,
        "records": read_records(redis),
        "quotas": read_quotas(redis),
        "farm_toml": read_settings_file(),
    }
    backup = encrypt(json.dumps({**content, "exported_at": time.time()}).encode(), passphrase)
    with open_output(file) as output:
        output.write(backup)
    store.record_export(credential["id"] for credential in credentials)
    record_change(redis, "farm.export", file, {"credentials": len(credentials), "move": move})
    print(
        f"farm: {len(credentials)} credentials exported" + ("; they are disabled here" if move else ""), file=sys.stderr
    )


@click.command(name="import")
@click.argument("file", type=click.Path(allow_dash=True))
@passphrase_option
@exit_on_error
def import_(file: str, passphrase_file: Any) -> None:
    """Import what `export` wrote to FILE; records that already exist here stay as they are."""
    settings, redis = open_store()
    backup = sys.stdin.buffer.read() if file == "-" else resolve_path(file).read_bytes()
    content = json.loads(decrypt(backup, read_passphrase(passphrase_file, confirm=False)))
    counts = add_records(redis, content["records"], content["quotas"])
    pools = set(settings.pool_names)
    counts.update(add_credentials(Credentials(redis), content["credentials"], pools))
    record_change(redis, "farm.import", file, dict(counts))
    for name, count in counts.items():
        print_line(f"{count} {name}")
    write_settings_file(content["farm_toml"])


def disable_all(store: Credentials, pools: list[str]) -> None:
    """Disables every credential and waits until no worker holds one, so that no token can rotate. Raises FarmError."""
    for record in store.list(pools):
        store.set_state(record.pool, record.id, "disabled", "moved to another farm")
    deadline = time.monotonic() + DRAIN_TIMEOUT_SECONDS
    while any(record.owner for record in store.list(pools)):
        if time.monotonic() > deadline:
            raise FarmError(
                "workers are still using credentials, now disabled; try again when their requests have finished"
            )
        time.sleep(0.2)


def read_passphrase(file: Any, *, confirm: bool) -> str:
    """Reads the passphrase from the file or prompts without echo; never from the command line, which others can see."""
    if file is not None:
        return str(file.readline()).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise FarmError("no terminal to prompt for the passphrase: use --passphrase-file")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


def open_output(file: str) -> BinaryIO:
    """Opens a new file that only its owner can read, or standard output. Raises FileExistsError."""
    if file == "-":
        return sys.stdout.buffer
    return os.fdopen(os.open(resolve_path(file), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")


def read_records(redis: Redis) -> dict[str, dict[str, str]]:
    """Reads API keys and admin tokens: digests and records, without secrets."""
    return {name: decode_hash(redis.hgetall(name)) for name in COPIED_HASHES}


def read_quotas(redis: Redis) -> dict[str, dict[str, str]]:
    """Reads what each API key has used of its quota, without reservations of running requests."""
    quotas = {}
    for encoded_id in redis.hkeys(keys.API_KEY_IDS):
        key_id = encoded_id.decode()
        values = redis.hmget(keys.quota(key_id), QUOTA_FIELDS)
        quota = {name: value.decode() for name, value in zip(QUOTA_FIELDS, values, strict=True) if value is not None}
        if quota:
            quotas[key_id] = quota
    return quotas


def read_settings_file() -> str:
    """Returns the text of farm.toml, '' when there is none."""
    path = find_settings_file()
    return path.read_text() if path.exists() else ""


def add_records(redis: Redis, records: dict[str, dict[str, str]], quotas: dict[str, dict[str, str]]) -> Counter[str]:
    """Adds missing API keys, with their used quotas, and admin tokens; returns counts for the report."""
    counts: Counter[str] = Counter()
    for name, kind in COPIED_HASHES.items():
        for field, value in records.get(name, {}).items():
            is_new = redis.hsetnx(name, field, value)
            if kind:
                counts[f"{kind} added" if is_new else f"{kind} known already"] += 1
    for key_id, quota in quotas.items():
        if quota and not redis.exists(keys.quota(key_id)):
            redis.hset(keys.quota(key_id), mapping=quota)
    return counts


def add_credentials(store: Credentials, credentials: list[dict[str, Any]], pools: set[str]) -> Counter[str]:
    """Adds missing credentials of the configured pools, in their states; returns counts for the report."""
    counts: Counter[str] = Counter()
    for credential in credentials:
        pool, state = credential["pool"], credential["state"]
        if pool not in pools:
            counts[f"credentials left out: there is no pool {pool} here; import again when there is"] += 1
            continue
        credential_id, is_new = store.add(pool, credential["refresh_token"], credential["label"], credential["id"])
        counts["credentials added" if is_new else "credentials known already"] += 1
        if is_new and state in STATES and state not in ("active", "cooling"):
            store.force_state(pool, credential_id, state, credential["reason"])
    return counts


def write_settings_file(text: str) -> None:
    """Writes the other farm's farm.toml if there is none here; a different one is left alone and reported."""
    path = find_settings_file()
    if not text or (path.exists() and path.read_text() == text):
        return
    if path.exists():
        print_line(f"{path} differs from the other farm's and was left unchanged")
        return
    path.touch(mode=0o600)
    path.write_text(text)
    print_line(f"{path} written: run `./farm restart`, then import again for the credentials of its pools")
