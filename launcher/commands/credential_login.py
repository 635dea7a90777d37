"""`./farm credentials login`: adds an account by signing in, with a browser or with a code for another device."""

import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack

import click
from redis import Redis

from launcher.loopback_listener import LoopbackListener, PastedAnswers
from launcher.output import exit_on_error, json_option, print_json, print_line
from launcher.selection import select_pool
from launcher.store import open_store, record_change
from shared.errors import FarmError, NotFound
from shared.protocol.credential_operations import CredentialOperation, CredentialOperations
from shared.sign_in.sign_in import ANSWER_OPERATION, BEGIN_OPERATION, SignIn
from shared.sign_in.sign_ins import SignIns

#: Seconds between two looks at what has become of the sign-in.
LOOK_INTERVAL_SECONDS = 0.5


@click.command()
@click.option("--pool", default="default", show_default=True, help="The pool to add the account to.")
@click.option("--device", is_flag=True, help="Show a code to enter in a browser on any machine (RFC 8628).")
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="Port of this machine for the browser; 0: any.")
@click.option("--label", default="", help="A note to recognise the credential by.")
@json_option
@exit_on_error
def login(pool: str, device: bool, port: int, label: str, as_json: bool) -> None:
    """Add an account by signing in to it.

    Prints the page to open, waits until somebody has signed in there, and says which account came in. If the browser
    runs on another machine, paste the address at which it ends (http://127.0.0.1:…), or use --device.
    """
    settings, redis = open_store()
    login_ = Login(redis, select_pool(settings, pool), label, as_json)
    sign_in = login_.run_device() if device else login_.run_browser(port)
    if as_json:
        print_json(sign_in.to_dict())
    if sign_in.state != "done":
        raise FarmError(f"nobody was signed in ({sign_in.error}): {sign_in.message}")
    record_change(redis, "credentials.login", sign_in.credential_id, {"pool": pool, "outcome": sign_in.outcome})
    if not as_json:
        what = "added as" if sign_in.outcome == "added" else "known already: its token was replaced in"
        print_line(f"{sign_in.account or 'the account'} {what} {sign_in.credential_id}")


class Login:
    """One sign-in from the command line. A worker process carries it out; this waits for it."""

    def __init__(self, redis: Redis, pool: str, label: str, as_json: bool) -> None:
        self._operations = CredentialOperations(redis)
        self._sign_ins = SignIns(redis)
        self._pool, self._label = pool, label
        self._id = ""
        #: With --json standard output has the result alone.
        self._say: Callable[[str], None] = (lambda text: click.echo(text, err=True)) if as_json else print_line

    def run_device(self) -> SignIn:
        """Shows a code, and waits. Raises FarmError."""
        sign_in = self._begin("device", "")
        self._say(f"open {sign_in.url}\nand enter the code {sign_in.user_code}")
        return self._wait(dict)

    def run_browser(self, port: int) -> SignIn:
        """Shows a URL, and waits for the browser to come back to this machine. Raises FarmError, OSError."""
        with ExitStack() as stack:
            listener = LoopbackListener(port, self._take_answer)
            stack.callback(listener.close)
            sign_in = self._begin("browser", listener.redirect_uri)
            listener.start()
            self._say(f"open this page in a browser and sign in:\n{sign_in.url}")
            if sys.stdin.isatty():
                self._say("(with a browser on another machine: paste the address at which it ends)")
                return self._wait(PastedAnswers(sys.stdin.readline).take)
            return self._wait(dict)

    def _begin(self, flow: str, redirect_uri: str) -> SignIn:
        self._id = self._sign_ins.create(self._pool, flow, redirect_uri, self._label).id
        result = self._operations.request(CredentialOperation(self._pool, self._id, BEGIN_OPERATION))
        if not result["ok"]:
            raise FarmError(result["error"])
        return self._sign_ins.get(self._id)

    def _take_answer(self, answer: Mapping[str, str]) -> str:
        """Hands what the browser came back with to a worker process; returns what became of it."""
        try:
            if self._sign_ins.find_by_state(answer.get("state", "")).id != self._id:
                return "This answer belongs to another sign-in."
            if not self._sign_ins.submit(self._id, answer):
                return "This answer has been used already, or comes too late."
            self._operations.request(CredentialOperation(self._pool, self._id, ANSWER_OPERATION))
            sign_in = self._sign_ins.get(self._id)
        except (NotFound, FarmError) as error:
            return f"Not signed in: {error}."
        return "You are signed in. You may close this page." if sign_in.state == "done" else sign_in.message

    def _wait(self, take_pasted: Callable[[], Mapping[str, str]]) -> SignIn:
        """Returns the sign-in at its end; one that is interrupted is cancelled."""
        try:
            while (sign_in := self._sign_ins.get(self._id)).state == "pending":
                if pasted := take_pasted():
                    self._say(self._take_answer(pasted))
                time.sleep(LOOK_INTERVAL_SECONDS)
            return sign_in
        finally:
            self._sign_ins.fail(self._id, "cancelled", "the sign-in was cancelled")
