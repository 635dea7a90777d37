"""Figures of several runs, what was promised of them, and the report that is made of both."""

import json
from pathlib import Path

import pytest

from bench.compare.figures import PROMISES, Figures, Promise, Sample
from bench.compare.measure import added
from bench.compare.report import promises, read, write
from bench.compare.scenarios import SMOKE, Scale


def sample(system: str, value: float, name: str = "requests/s", case: str = "50 clients") -> Sample:
    return Sample("overhead", case, system, name, value)


RUNS = [*(sample("farm", value) for value in (300.0, 100.0, 200.0)), sample("portkey", 150.0), sample("litellm", 50.0)]


def test_runs_become_a_median_with_the_least_and_the_most():
    figures = Figures(RUNS)
    assert figures.find("overhead", "50 clients", "farm", "requests/s") == 200
    assert [str(one) for one in figures.all] == ["200 (100 to 300)", "150", "50"]
    assert figures.find("overhead", "50 clients", "haproxy", "requests/s") is None


@pytest.mark.parametrize(
    ("promise", "found"),
    [
        (Promise("overhead", "50 clients", "requests/s", ">=", 200), (200, 200, True)),
        (Promise("overhead", "50 clients", "requests/s", "<=", 199), (200, 199, False)),
        (Promise("overhead", "50 clients", "requests/s", ">=", 5, "litellm", times=True), (200, 250, False)),
        (Promise("overhead", "50 clients", "requests/s", ">=", -10, "portkey"), (200, 140, True)),
        (Promise("overhead", "50 clients", "requests/s", ">=", 1, "haproxy", times=True), None),
        (Promise("overhead", "9 clients", "requests/s", ">=", 1), None),
    ],
)
def test_a_promise_is_kept_or_not_or_was_not_measured(promise: Promise, found: tuple[float, float, bool] | None):
    assert promise.kept(Figures(RUNS)) == found


def test_what_a_system_adds_is_told_beside_the_bare_upstream_of_the_same_run():
    run = [sample("direct", 1.5, "latency p50, ms"), sample("farm", 4.0, "latency p50, ms"), sample("farm", 9.0)]
    assert list(added(run)) == [sample("farm", 2.5, "added latency p50, ms")]
    assert list(added(run[1:])) == []


def test_every_promise_is_about_something_that_is_measured():
    cases = {f"{accounts} accounts, {service:g} s" for accounts, service in Scale().grid}
    assert {one.case for one in PROMISES if one.scenario == "utilisation"} <= cases
    assert {one.case for one in PROMISES if one.scenario == "streaming"} <= {f"{n} streams" for n in Scale().streams}
    assert Scale.__dataclass_fields__.keys() == vars(SMOKE).keys()


def test_a_report_has_tables_a_plot_and_the_figures_of_each_run(tmp_path: Path):
    write(tmp_path / "here", Figures(RUNS), {"machine": "a small one", "measured": {"overhead": "today"}})
    text = (tmp_path / "here" / "README.md").read_text()
    assert "| requests/s | 200 (100 to 300) | 150 | 50 |" in text
    assert "![overhead](overhead.svg)" in text
    assert "a small one" in text
    assert "- overhead: today" in text
    assert "requests/s >= 5 x litellm (= 250) | 200 | **no** |" in text
    assert "<svg" in (tmp_path / "here" / "overhead.svg").read_text()
    (first, *_) = json.loads((tmp_path / "here" / "results.json").read_text())["figures"]
    assert (first["median"], first["values"]) == (200, [300, 100, 200])
    assert Figures(read(tmp_path / "here")[0]).all == Figures(RUNS).all
    assert read(tmp_path / "here")[1] == {"overhead": "today"}
    assert read(tmp_path / "nowhere") == ([], {})


def test_nothing_is_said_of_promises_when_none_was_measured():
    assert promises(Figures([])) == ""
