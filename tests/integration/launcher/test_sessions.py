"""`./farm sessions` lists and ends login sessions."""

import json

from redis import Redis

from shared.api_keys.admin_sessions import AdminSessions
from tests.integration.launcher.conftest import Run


def test_sessions_are_listed_and_ended(run: Run, redis: Redis):
    store = AdminSessions(redis)
    opened = [store.open("first", "admin", "digest", f"192.0.2.{host}") for host in range(3)]
    ids = [session.id for _, session in opened]
    listed = json.loads(run("sessions", "list", "--json").stdout)
    assert {record["id"] for record in listed} == set(ids)
    shown = run("sessions", "list").stdout
    assert "192.0.2.1" in shown
    assert "digest" not in shown + str(listed)
    assert run("sessions", "end", ids[0]).stdout == f"{ids[0]} ended\n"
    assert [store.find(secret) is not None for secret, _ in opened] == [False, True, True]
    assert run("sessions", "end", ids[0]).exit_code == 1
    assert run("sessions", "end").exit_code == 2
    assert run("sessions", "end", "--all").stdout == "2 sessions ended\n"
    assert store.list() == []
