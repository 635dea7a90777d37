"""`./farm credentials test|refresh|revoke`: what is done with credentials by their workers, between two requests."""

import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import click

from launcher.output import json_option, print_json, print_line
from launcher.selection import named
from launcher.store import exit_on_error, open_store
from shared.credentials.records import CredentialRecord
from shared.credentials.store import Credentials
from shared.errors import FarmError
from shared.protocol.credential_operations import CredentialOperation

#: Errands on their way at once.
MAX_CONCURRENT_OPERATIONS = 8


@click.command()
@click.argument("credential_ids", nargs=-1)
@click.option("--all", "all_", is_flag=True, help="Every credential of every pool.")
@click.option("--model", default="", help="What the chat asks for; the first model that there is when not given.")
@json_option
@exit_on_error
def test(credential_ids: tuple[str, ...], all_: bool, model: str, as_json: bool) -> None:
    """One real refresh and one tiny chat with each, by its worker between two requests; exit code 1 when one fails."""
    settings, redis = open_store()
    if all_:
        credential_ids = tuple(one.id for one in Credentials(redis).list(settings.pool_names))
    elif not credential_ids:
        raise FarmError("name credentials, or --all")
    run_operations(credential_ids, "test", as_json, model)


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@json_option
@exit_on_error
def refresh(credential_ids: tuple[str, ...], as_json: bool) -> None:
    """Exchange refresh tokens now."""
    run_operations(credential_ids, "refresh", as_json)


@click.command()
@click.argument("credential_ids", nargs=-1, required=True)
@json_option
@exit_on_error
def revoke(credential_ids: tuple[str, ...], as_json: bool) -> None:
    """Revoke tokens at the upstream (RFC 7009), where the pool has FARM_REVOCATION_URL, and disable them."""
    run_operations(credential_ids, "revoke", as_json)


def run_operations(credential_ids: tuple[str, ...], kind: str, as_json: bool, model: str = "") -> None:
    """Has something done with each credential, some at a time; ends with exit code 1 when one failed."""
    store, found = named(credential_ids)
    desk = store.errands()

    def ask(one: CredentialRecord) -> dict[str, Any]:
        store.note(f"credential.{kind}", one.id)
        try:
            return {"id": one.id, "pool": one.pool, **desk.request(CredentialOperation(one.pool, one.id, kind, model))}
        except FarmError as error:
            return {"id": one.id, "pool": one.pool, "ok": False, "error": str(error)}

    answers = []
    hidden = as_json or not sys.stderr.isatty() or len(found) == 1
    with (
        ThreadPoolExecutor(MAX_CONCURRENT_OPERATIONS) as pool,
        click.progressbar(
            pool.map(ask, found), length=len(found), label=kind, file=sys.stderr, hidden=hidden
        ) as coming,
    ):
        for answer in coming:
            answers.append(answer)
            if not as_json:
                print_line(f"{answer['id']} {describe_result(answer)}")
    if as_json:
        print_json(answers)
    if not all(answer["ok"] for answer in answers):
        sys.exit(1)


def describe_result(answer: dict[str, Any]) -> str:
    """What came of an errand in a line."""
    if not answer["ok"]:
        return f"failed: {answer.get('error') or 'no reason given'}"
    times = {"refresh_ms": "refresh", "chat_ms": "chat", "first_byte_ms": "first byte"}
    parts = [f"{words} {answer[name]} ms" for name, words in times.items() if answer.get(name)]
    return ", ".join(["ok", *parts, *([answer["model"]] if answer.get("model") else [])])
