"""The entry point of `./farm`."""

import sys
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from launcher.bootstrap import open_closed_streams
from launcher.lazy_group import LazyGroup
from launcher.lost_output import keep_working
from launcher.replace_process import replace_process

ROOT = Path(__file__).resolve().parent.parent


#: The commands in each module of `launcher.commands`.
COMMANDS = {
    "admin_tokens": ("admin_tokens",),
    "alerts": ("alerts",),
    "backup": ("export", "import_"),
    "batches": ("batches",),
    "config": ("config", "pools"),
    "credentials": ("credentials",),
    "files": ("files",),
    "keys": ("keys",),
    "lifecycle": ("logs", "reload", "stop"),
    "plan": ("plan",),
    "rekey": ("rekey",),
    "restart": ("restart",),
    "rq_tool": ("rq",),
    "run": ("run",),
    "sessions": ("sessions",),
    "status": ("status",),
    "top": ("top",),
    "up": ("up",),
    "usage": ("audit", "events", "requests", "usage"),
}
LAZY = {
    name.rstrip("_").replace("_", "-"): (f"launcher.commands.{module}", name)
    for module, names in COMMANDS.items()
    for name in names
}


@click.group(cls=LazyGroup, lazy=LAZY, context_settings={"help_option_names": ["-h", "--help"]})
def farm() -> None:
    """One OpenAI-compatible endpoint in front of many accounts: a queue, and one worker per refresh token."""


@farm.command(context_settings={"ignore_unknown_options": True})
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def test(arguments: tuple[str, ...]) -> None:
    """Run the whole test suite (arguments go to pytest)."""
    replace_process([sys.executable, str(ROOT / "tests" / "run.py"), *arguments])


@farm.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def bench(arguments: tuple[str, ...]) -> None:
    """Measure the farm (`./farm bench --help` lists the benchmarks)."""
    replace_process([sys.executable, "-m", "bench", *arguments])


@farm.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Print the completion script of SHELL for a `farm` on PATH, e.g. for `source <(./farm completion bash)`."""
    completion_class = get_completion_class(shell)
    assert completion_class is not None
    click.echo(completion_class(farm, {}, "farm", "_FARM_COMPLETE").source())


if __name__ == "__main__":
    open_closed_streams()
    with keep_working():
        farm(prog_name="farm")
