"""What an error says of the bounds of a setting is true, of each setting and in each way to give it."""

import operator
import re
from collections.abc import Iterator
from dataclasses import Field
from typing import Any

import pytest

from shared.errors import SettingsError
from shared.settings.loading import parse_value
from shared.settings.schema import PoolSettings, Settings, setting_fields

#: Words of messages -> what they mean.
RELATIONS = {"at least": operator.ge, "more than": operator.gt, "at most": operator.le}
BOUND = re.compile(rf"({'|'.join(RELATIONS)}) (\d+)")
#: Beyond every bound.
TINY, HUGE = -(10**30), 10**30
NAMED = {
    f"{cls.__name__}.{name}": setting_field
    for cls in (Settings, PoolSettings)
    for name, setting_field in setting_fields(cls).items()
}
NUMBERS = {name: f for name, f in NAMED.items() if f.type in (int, float, int | None, float | None)}
TEXTS = {name: f for name, f in NAMED.items() if f.type is str}


def refuse(setting_field: Field[Any], value: object) -> str:
    """What is said of a value, '' if it is taken."""
    try:
        parse_value(setting_field, value, "NAME")
    except SettingsError as error:
        return str(error)
    return ""


def is_whole(setting_field: Field[Any]) -> bool:
    return setting_field.type in (int, int | None)


def values_around(bounds: list[tuple[str, str]], *, is_whole: bool) -> Iterator[float]:
    steps = (-1, 0, 1) if is_whole else (-1, -0.001, 0, 0.001, 1)
    yield from (int(number) + step for _, number in bounds for step in steps)
    yield from (TINY, HUGE)


@pytest.mark.parametrize("setting_field", NUMBERS.values(), ids=NUMBERS)
def test_number_is_refused_where_the_message_says_so_and_nowhere_else(setting_field: Field[Any]):
    bounds = BOUND.findall(refuse(setting_field, TINY))
    assert bounds
    for value in values_around(bounds, is_whole=is_whole(setting_field)):
        is_within = all(RELATIONS[words](value, int(number)) for words, number in bounds)
        for given in (value, str(value), f" {value} "):
            message = refuse(setting_field, given)
            assert (message == "") == is_within, (given, message)
            assert is_within or (BOUND.findall(message), repr(given) in message) == (bounds, True), message
    if re.search(r"\b0: ", setting_field.metadata["help"]):
        assert refuse(setting_field, 0) == ""


@pytest.mark.parametrize("setting_field", NUMBERS.values(), ids=NUMBERS)
def test_what_is_no_number_is_called_none(setting_field: Field[Any]):
    kind = "a whole number" if is_whole(setting_field) else "a number"
    unfit: tuple[object, ...] = (
        "many",
        "",
        True,
        [1],
        float("nan"),
        float("inf"),
        *((1.5, "1.5") * is_whole(setting_field)),
    )
    for value in unfit:
        assert refuse(setting_field, value).startswith(f"NAME must be {kind}"), value


@pytest.mark.parametrize(("name", "said"), [("Settings.drain", "seconds"), ("Settings.files_ttl", "days")])
def test_unit_is_named(name: str, said: str):
    assert f"number of {said}, " in refuse(NUMBERS[name], -1)
    assert "number, " in refuse(NUMBERS["PoolSettings.weight"], 0)


def test_length_of_a_secret_is_as_the_message_and_the_help_text_say():
    bounded = {name: refuse(text, "x") for name, text in TEXTS.items() if "characters" in refuse(text, "x")}
    assert set(bounded) == {"Settings.admin_token", "Settings.metrics_token"}
    for name, message in bounded.items():
        ((_, length),) = BOUND.findall(message)
        assert f"at least {length} characters" in TEXTS[name].metadata["help"]
        assert refuse(TEXTS[name], "x" * (int(length) - 1)) == message.replace("'x'", "")
        assert refuse(TEXTS[name], "x" * int(length)) == ""
