"""`./farm alerts`: what is wrong now, who is told of it, and a test."""

import sys
from typing import Any

import click

from launcher.output import exit_on_error, format_time, json_option, print_json, print_line, print_table
from launcher.store import open_store, record_change
from shared.alerts.store import read_status
from shared.errors import FarmError
from shared.protocol.credential_operations import TEST_ALERTS, CredentialOperation, CredentialOperations


@click.group()
def alerts() -> None:
    """List alerts and their receivers (FARM_ALERT_URLS), or send a test."""


@alerts.command(name="list")
@json_option
@exit_on_error
def list_(as_json: bool) -> None:
    """List what is wrong now, and how far the receivers have been told."""
    status = read_status(open_store()[1])
    raised: list[dict[str, Any]] = [
        {
            "rule": alert.rule,
            "pool": alert.pool,
            "subject": alert.subject,
            "text": alert.describe(),
            "since": alert.since,
        }
        for alert in status.alerts
    ]
    receivers: list[dict[str, Any]] = [
        {"receiver": receiver.name, "waiting": status.waiting[id_], "retry_at": receiver.retry_at}
        | {"delivered_at": receiver.delivered_at, "failed_since": receiver.failed_since, "error": receiver.error}
        for id_, receiver in status.receivers.items()
    ]
    if as_json:
        print_json({"is_watched": status.is_watched, "alerts": raised, "receivers": receivers})
        return
    if not status.is_watched:
        print_line("no worker process watches for alerts: set FARM_ALERT_URLS, and `./farm reload`")
    rows = [(format_time(each["since"]), each["rule"], each["pool"] or "-", each["text"]) for each in raised]
    print_table(("SINCE", "RULE", "POOL", "ALERT"), rows)
    print_table(
        ("RECEIVER", "LAST TOLD", "WAITING", "FAILS SINCE", "ERROR"),
        [
            (
                *(each["receiver"], format_time(each["delivered_at"]), each["waiting"]),
                *(format_time(each["failed_since"]), each["error"] or "-"),
            )
            for each in receivers
        ],
    )


@alerts.command()
@json_option
@exit_on_error
def test(as_json: bool) -> None:
    """Send a test to every receiver; the exit code is 1 if one of them did not take it."""
    redis = open_store()[1]
    result = CredentialOperations(redis).request(CredentialOperation("", "", TEST_ALERTS))
    record_change(redis, "alert.test", "")
    if as_json:
        print_json(result)
    elif result["error"]:
        raise FarmError(result["error"])
    else:
        for each in result["results"]:
            print_line(f"{each['receiver']}: {each['error'] or 'sent'}")
    if not result["ok"]:
        sys.exit(1)
