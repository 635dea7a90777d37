"""`./farm export` and `import`: credentials, API keys, admin tokens and farm.toml in one encrypted file."""

import json
import sys
import time
from collections import Counter
from typing import Any

import click
from redis import Redis

from launcher.backup_encryption import check_passphrase, decrypt, encrypt
from launcher.export_steps import ExportSteps, longest_request
from launcher.file_argument import resolve_path
from launcher.number_option import NumberRange
from launcher.output import exit_on_error, print_line
from launcher.output_file import OutputFile
from launcher.store import open_store, record_change
from launcher.token_export import export_tokens
from shared import keys
from shared.api_keys.admin_tokens import AdminTokens
from shared.batches.batch_store import Batches
from shared.credentials.sealing import Sealer
from shared.credentials.store import Credentials
from shared.credentials.unsealing import load_unsealer
from shared.errors import FarmError
from shared.redis_connection.client import decode_hash
from shared.settings.loading import find_settings_file

#: Hashes copied field by field, except for fields that already exist -> their name in the import's report, '' for none.
COPIED_HASHES = {
    keys.API_KEYS: "API keys",
    keys.API_KEY_IDS: "",
    keys.SUPERSEDED_API_KEYS: "",
    keys.ADMIN_TOKENS: "admin tokens",
}
#: Fields that every credential of a backup has.
CREDENTIAL_FIELDS = ("id", "pool", "label", "state", "reason", "refresh_token")
#: Fields of a key's quota that are copied: its period and what was used.
QUOTA_FIELDS = ("period", "tokens", "requests")
passphrase_option = click.option(
    "--passphrase-file", type=click.File("r"), help="Read the passphrase from a file ('-' for standard input)."
)


@click.command()
@click.argument("file", type=click.Path(allow_dash=True))
@click.option("--move", is_flag=True, help="Disable the credentials here, so that no token rotates after the export.")
@click.option(
    "--wait",
    type=NumberRange(0),
    help="With --move: seconds to wait for running requests; by default, FARM_TOTAL_TIMEOUT.",
)
@passphrase_option
@exit_on_error
def export(file: str, move: bool, wait: float | None, passphrase_file: Any) -> None:
    """Write credentials, keys, admin tokens and farm.toml to FILE ('-' for standard output), encrypted.

    If it fails, everything is as it was before.
    """
    settings, redis = open_store()
    passphrase = read_passphrase(passphrase_file, confirm=True)
    check_passphrase(passphrase)
    with OutputFile(file) as output, ExportSteps(Credentials(redis), settings.pool_names) as steps:
        if move:
            steps.suspend_all(longest_request(settings) if wait is None else wait)
        steps.record_export()
        credentials = export_tokens(redis, load_unsealer(settings), settings.pool_names)
        content = {
            "credentials": credentials,
            "records": read_records(redis),
            "quotas": read_quotas(redis),
            "farm_toml": read_settings_file(),
        }
        output.write(encrypt(json.dumps({**content, "exported_at": time.time()}).encode(), passphrase))
    record_change(redis, "farm.export", file, {"credentials": len(credentials), "move": move})
    disabled = "; they are disabled here" if move else ""
    print(f"farm: {len(credentials)} credentials exported{disabled}", file=sys.stderr)
    steps.warn_of_rotations()
    if move and (count := len(Batches(redis).list_active())):
        message = f"batches that have not ended stay here, without these accounts: {count}"
        print(f"farm: {message} (`./farm batches list --active`)", file=sys.stderr)


@click.command(name="import")
@click.argument("file", type=click.Path(allow_dash=True))
@passphrase_option
@exit_on_error
def import_(file: str, passphrase_file: Any) -> None:
    """Import what `export` wrote to FILE; records that already exist here stay as they are.

    An import that was interrupted is completed by another.
    """
    settings, redis = open_store()
    backup = sys.stdin.buffer.read() if file == "-" else resolve_path(file).read_bytes()
    content = parse_content(decrypt(backup, read_passphrase(passphrase_file, confirm=False)))
    Sealer.load(redis)
    write_settings_file(content["farm_toml"])
    counts = add_records(redis, content["records"], content["quotas"])
    pools = set(settings.pool_names)
    counts.update(add_credentials(Credentials(redis), content["credentials"], pools))
    record_change(redis, "farm.import", file, dict(counts))
    for name, count in counts.items():
        print_line(f"{count} {name}")


def parse_content(text: bytes) -> dict[str, Any]:
    """Raises FarmError unless this is the whole content of a backup, so that no import stops half way."""
    try:
        content: dict[str, Any] = json.loads(text)
        for credential in content["credentials"]:
            if not all(isinstance(credential[name], str) for name in CREDENTIAL_FIELDS):
                raise TypeError
        for name in ("records", "quotas"):
            content[name].items()
        content["farm_toml"].encode()
    except (ValueError, KeyError, TypeError, AttributeError):
        raise FarmError("the backup is incomplete, or of another version") from None
    return content


def read_passphrase(file: Any, *, confirm: bool) -> str:
    """Reads the passphrase from the file or prompts without echo; never from the command line, which others can see."""
    if file is not None:
        return str(file.readline()).rstrip("\r\n")
    if not sys.stdin.isatty():
        raise FarmError("no terminal to prompt for the passphrase: use --passphrase-file")
    return str(click.prompt("Passphrase", hide_input=True, confirmation_prompt=confirm, err=True))


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
            is_new = restore_record(redis, name, field, value)
            if kind:
                counts[f"{kind} added" if is_new else f"{kind} known already"] += 1
    for key_id, quota in quotas.items():
        if quota and not redis.exists(keys.quota(key_id)):
            redis.hset(keys.quota(key_id), mapping=quota)
    return counts


def restore_record(redis: Redis, name: str, field: str, value: str) -> bool:
    """Adds one record if it is missing. A key that has another secret here keeps it: one of the farms rotated it."""
    if name == keys.ADMIN_TOKENS:
        return AdminTokens(redis).restore(field, value)
    if name == keys.API_KEYS:
        present = redis.hget(keys.API_KEY_IDS, json.loads(value)["id"])
        if present is not None and present.decode() != field:
            return False
    return bool(redis.hsetnx(name, field, value))


def add_credentials(store: Credentials, credentials: list[dict[str, Any]], pools: set[str]) -> Counter[str]:
    """Adds missing credentials of the configured pools, in their states; returns counts for the report."""
    counts: Counter[str] = Counter()
    for credential in credentials:
        pool = credential["pool"]
        if pool not in pools:
            counts[f"credentials left out: there is no pool {pool} here; import again when there is"] += 1
        else:
            counts["credentials added" if store.restore(credential) else "credentials known already"] += 1
    return counts


def write_settings_file(text: str) -> None:
    """Writes the other farm's farm.toml if there is none here; a different one is left alone and reported."""
    path = find_settings_file()
    if not text or (path.exists() and path.read_text() == text):
        return
    if path.exists():
        print_line(f"{path} differs from the other farm's and was left unchanged")
        return
    with OutputFile(str(path.absolute())) as file:
        file.write(text.encode())
    print_line(f"{path} written: run `./farm restart`, then import again for the credentials of its pools")
