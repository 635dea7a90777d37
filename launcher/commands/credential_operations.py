"""`./farm credentials test|refresh|revoke`: operations that workers run on credentials between two requests."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click
from redis import Redis

from launcher.output import exit_on_error, json_option, print_json, print_line
from launcher.selection import select_credentials
from launcher.store import open_store, record_change
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from shared.settings.schema import Settings

MAX_CONCURRENT_OPERATIONS = 8


@click.command()
@click.argument("credential_ids", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every credential of every pool.")
@click.option("--model", default="", help="Model of the chat request; by default the first model of the upstream.")
@json_option
@exit_on_error
def test(credential_ids: tuple[str, ...], all_: bool, model: str, as_json: bool) -> None:
    """Test credentials with a real refresh and a tiny chat request each; exit code 1 when one fails."""
    settings, redis = open_store()
    if all_:
        credential_ids = tuple(credential.id for credential in Credentials(redis).list(settings.pool_names))
    elif not credential_ids:
        raise FarmError("give credential ids, or --all")
    run_operations(settings, redis, credential_ids, "test", as_json, model)


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@json_option
@exit_on_error
def refresh(credential_ids: tuple[str, ...], as_json: bool) -> None:
    """Exchange refresh tokens for new access tokens now."""
    run_operations(*open_store(), credential_ids, "refresh", as_json)


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@json_option
@exit_on_error
def revoke(credential_ids: tuple[str, ...], as_json: bool) -> None:
    """Revoke tokens at the upstream (RFC 7009), if the pool has FARM_REVOCATION_URL, and disable their credentials."""
    run_operations(*open_store(), credential_ids, "revoke", as_json)


def run_operations(
    settings: Settings, redis: Redis, credential_ids: tuple[str, ...], kind: str, as_json: bool, model: str = ""
) -> None:
    """Runs an operation on each credential, several at a time; exits with code 1 when one has failed."""
    credentials = select_credentials(settings, redis, credential_ids)
    operations = CredentialOperations(redis)

    def request(credential: CredentialRecord) -> dict[str, Any]:
        identity = {"id": credential.id, "pool": credential.pool}
        if credential.state == "foreign":
            return {**identity, "ok": False, "error": credential.reason}
        record_change(redis, f"credential.{kind}", credential.id)
        try:
            result = operations.request(CredentialOperation(credential.pool, credential.id, kind, model))
            return {**identity, **result}
        except FarmError as error:
            return {**identity, "ok": False, "error": str(error)}

    results = []
    hidden = as_json or not sys.stderr.isatty() or len(credentials) == 1
    with (
        ThreadPoolExecutor(MAX_CONCURRENT_OPERATIONS) as executor,
        click.progressbar(
            executor.map(request, credentials), length=len(credentials), label=kind, file=sys.stderr, hidden=hidden
        ) as progress,
    ):
        for result in progress:
            results.append(result)
            if not as_json:
                print_line(f"{result['id']} {describe_result(result)}")
    if as_json:
        print_json(results)
    if not all(result["ok"] for result in results):
        sys.exit(1)


def describe_result(result: dict[str, Any]) -> str:
    """Summarises the result of an operation in one line."""
    if not result["ok"]:
        return f"failed: {result.get('error') or 'no reason given'}"
    labels = {"refresh_ms": "refresh", "chat_ms": "chat", "first_byte_ms": "first byte"}
    times = [f"{label} {result[name]} ms" for name, label in labels.items() if result.get(name)]
    return ", ".join(["ok", *times, *([result["model"]] if result.get("model") else [])])
