"""Options that are numbers or times take none that Python only calls so."""

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from launcher.__main__ import farm
from launcher.commands.credential_limits import LimitValue
from launcher.number_option import NumberRange
from launcher.time_option import TimeParameter

KINDS = (click.types.FloatParamType, click.FloatRange, LimitValue, TimeParameter)


def list_parameters(command: click.Command, path: str = "") -> Iterator[tuple[str, click.Parameter]]:
    """Every parameter of every command below this one, with its name."""
    for parameter in command.params:
        yield f"{path} {parameter.name}".strip(), parameter
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            subcommand = command.get_command(context, name)
            assert subcommand
            yield from list_parameters(subcommand, f"{path} {name}".strip())


FRACTIONS = {name: parameter for name, parameter in list_parameters(farm) if isinstance(parameter.type, KINDS)}


def test_commands_have_such_options():
    assert {"top interval", "keys rotate grace_hours", "credentials limit account_gap", "events since"} <= set(
        FRACTIONS
    )


@pytest.mark.parametrize("name", FRACTIONS)
@pytest.mark.parametrize("value", ["nan", "-nan", "NaN"])
def test_no_option_takes_what_is_not_a_number(name: str, value: str):
    with pytest.raises(click.BadParameter):
        FRACTIONS[name].type.convert(value, FRACTIONS[name], None)


def test_time_is_finite():
    with pytest.raises(click.BadParameter):
        FRACTIONS["events since"].type.convert("inf", None, None)
    assert FRACTIONS["events since"].type.convert("1e9", None, None) == 1e9


def test_command_names_the_option():
    @click.command()
    @click.option("--hours", type=NumberRange(0, 24), default=1)
    def command(hours: float) -> None:
        click.echo(f"{hours}")

    assert CliRunner().invoke(command, ["--hours", "2.5"]).stdout == "2.5\n"
    assert (
        "Invalid value for '--hours': 'nan' is not a number." in CliRunner().invoke(command, ["--hours", "nan"]).stderr
    )
