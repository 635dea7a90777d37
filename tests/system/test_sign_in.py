"""`./farm credentials login` adds an account by signing in, without a token on anybody's screen."""

import json
import os
import pty
import re
import subprocess
import sys
from typing import Any

import requests

from shared import keys
from shared.redis_connection.client import connect
from tests.environment import ROOT
from tests.system.farm import Farm, chat_body
from tests.waiting import eventually

#: Accounts of the simulator that have no credential.
FIRST_SPARE, SECOND_SPARE = 8, 9


def log_in(farm: Farm, account: int, decision: str, *options: str) -> tuple[int, dict[str, Any], str]:
    """Runs `credentials login`, decides on the page that it shows; returns exit code, result and messages."""
    command = [sys.executable, "-m", "launcher", "credentials", "login", "--json", *options]
    process = subprocess.Popen(
        command,
        env=farm.environment,
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr
    shown = process.stderr.readline() + process.stderr.readline()
    form = {"account": str(account), "decision": decision}
    found = re.search(r"(http\S+)", shown)
    assert found, shown + process.stderr.read()
    page, _, query = found[1].partition("?")
    code = re.search(r"the code (\S+)", shown)
    form |= {"user_code": code[1]} if code else {"request": query}
    # A browser follows the redirect to the listener of the command.
    page_text = requests.post(page, data=form, timeout=60).text
    output, errors = process.communicate(timeout=60)
    assert "refresh" not in page_text
    return process.returncode, json.loads(output), shown + errors


def log_in_by_pasting(farm: Farm, account: int) -> tuple[int, dict[str, Any], str]:
    """The same on a terminal, for a browser on another machine: the address at which it ends is pasted."""
    keyboard, terminal = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "launcher", "credentials", "login", "--json"],
        env=farm.environment,
        cwd=ROOT,
        stdin=terminal,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(terminal)
    assert process.stderr
    shown = "".join(process.stderr.readline() for _ in range(3))
    assert "paste the address" in shown, shown + process.stderr.read()
    page, _, query = re.findall(r"(http\S+)", shown)[0].partition("?")
    form = {"account": str(account), "decision": "allow", "request": query}
    ended_at = requests.post(page, data=form, allow_redirects=False, timeout=60).headers["location"]
    os.write(keyboard, f"something else\n  {ended_at} \n".encode())
    output, errors = process.communicate(timeout=60)
    os.close(keyboard)
    return process.returncode, json.loads(output), errors


def test_account_signs_in_by_a_pasted_address(farm: Farm):
    status, result, messages = log_in_by_pasting(farm, FIRST_SPARE)
    assert (status, result["state"], result["outcome"]) == (0, "done", "added"), messages
    assert "You are signed in." in messages
    farm.admin("DELETE", f"/credentials/{result['credential_id']}")


def test_account_signs_in_by_browser_and_by_code_and_serves(farm: Farm):
    before = len(farm.credentials())
    status, first, _ = log_in(farm, FIRST_SPARE, "allow")
    assert (status, first["state"], first["outcome"]) == (0, "done", "added")
    status, second, _ = log_in(farm, SECOND_SPARE, "allow", "--device", "--label", "mine")
    assert (status, second["outcome"], second["account"]) == (0, "added", "a***9@simulator.example")
    status, again, _ = log_in(farm, FIRST_SPARE, "allow")
    assert (status, again["outcome"], again["credential_id"]) == (0, "replaced", first["credential_id"])

    eventually(lambda: farm.live_pool()["workers"]["idle"] == before + 2)
    assert [farm.post("/v1/chat/completions", chat_body(str(n))).status_code for n in range(4)] == [200] * 4
    assert farm.upstream.counters()["collisions"] == 0
    listed = {credential["id"]: credential["account"] for credential in farm.credentials()}
    assert listed[first["credential_id"]] == "a***8@simulator.example"
    shown = farm.json("credentials", "show", first["credential_id"])
    assert (shown["account"], shown["subject"]) == ("account8@simulator.example", "account-8")
    for sign_in in (first, second):
        farm.admin("DELETE", f"/credentials/{sign_in['credential_id']}")


def test_refused_sign_in_is_an_error_that_says_why(farm: Farm):
    before = len(farm.credentials())
    status, result, messages = log_in(farm, FIRST_SPARE, "deny")
    assert (status, result["error"]) == (1, "access_denied")
    assert "access_denied" in messages
    assert len(farm.credentials()) == before


def test_reload_hands_over_the_polls_of_a_sign_in_by_code(farm: Farm):
    sign_in = farm.admin("POST", "/sign-ins", json={"flow": "device"}).json()
    redis, lock = connect(farm.redis_url()), keys.sign_in_poll(sign_in["id"])
    polling = eventually(lambda: redis.get(lock))
    assert farm.command("reload").returncode == 0
    eventually(lambda: redis.get(lock) not in (None, polling))
    farm.admin("DELETE", f"/sign-ins/{sign_in['id']}")
