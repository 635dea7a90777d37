"""A command's module is imported when it is asked for, and every command is found."""

import json
import subprocess
import sys

from tests.environment import ROOT

#: In a process of its own: in this one, other tests have imported commands.
SCRIPT = """
import json, sys
from click import Context
from launcher.__main__ import farm

def imported():
    return [name for name in sys.modules if name.startswith("launcher.commands.")]

farm.main(["completion", "bash"], standalone_mode=False)
steps = [imported()]
farm.main(["sessions", "--help"], standalone_mode=False)
steps.append(imported())
farm.main(["up", "--help"], standalone_mode=False)
farm.main(["stop", "--help"], standalone_mode=False)
steps.append("launcher.processes.up" in sys.modules)
context = Context(farm)
names = {name: farm.get_command(context, name).name for name in farm.list_commands(context)}
print()
print(json.dumps([*steps, imported(), names]))
"""


def test_command_imports_its_own_module_alone():
    result = subprocess.run([sys.executable, "-c", SCRIPT], cwd=ROOT, capture_output=True, text=True, check=True)
    at_start, after_one, is_up_imported, after_all, names = json.loads(result.stdout.splitlines()[-1])
    modules = {f"launcher.commands.{path.stem}" for path in (ROOT / "launcher" / "commands").glob("[!_]*.py")}
    assert (at_start, after_one, set(after_all)) == ([], ["launcher.commands.sessions"], modules)
    assert not is_up_imported
    assert all(name == found for name, found in names.items()), names
    assert {"import", "admin-tokens", "test", "up"} <= set(names)
