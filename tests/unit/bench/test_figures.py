"""Figures over several runs, their requirements and the report."""

import json
from pathlib import Path

import pytest

from bench.compare.figures import Figures, Sample
from bench.compare.measure import compute_differences
from bench.compare.report import format_requirements, read, write
from bench.compare.requirements import REQUIREMENTS, Requirement
from bench.compare.scenarios import SMOKE, CompareScale


def sample(system: str, value: float, name: str = "requests/s", case: str = "50 clients") -> Sample:
    return Sample("overhead", case, system, name, value)


RUNS = [*(sample("farm", value) for value in (300.0, 100.0, 200.0)), sample("portkey", 150.0), sample("litellm", 50.0)]


def test_a_figure_is_the_median_of_its_runs_with_minimum_and_maximum():
    figures = Figures(RUNS)
    assert figures.find_median("overhead", "50 clients", "farm", "requests/s") == 200
    assert [str(figure) for figure in figures.all] == ["200 (100 to 300)", "150", "50"]
    assert figures.find_median("overhead", "50 clients", "haproxy", "requests/s") is None


@pytest.mark.parametrize(
    ("requirement", "expected"),
    [
        (Requirement("overhead", "50 clients", "requests/s", ">=", 200), (200, 200, True)),
        (Requirement("overhead", "50 clients", "requests/s", "<=", 199), (200, 199, False)),
        (Requirement("overhead", "50 clients", "requests/s", ">=", 5, "litellm", is_factor=True), (200, 250, False)),
        (Requirement("overhead", "50 clients", "requests/s", ">=", -10, "portkey"), (200, 140, True)),
        (Requirement("overhead", "50 clients", "requests/s", ">=", 1, "haproxy", is_factor=True), None),
        (Requirement("overhead", "9 clients", "requests/s", ">=", 1), None),
    ],
)
def test_a_requirement_holds_or_not_or_was_not_measured(
    requirement: Requirement, expected: tuple[float, float, bool] | None
):
    assert requirement.evaluate(Figures(RUNS)) == expected


def test_differences_are_from_the_bare_upstream_in_the_same_run():
    run = [sample("direct", 1.5, "latency p50, ms"), sample("farm", 4.0, "latency p50, ms"), sample("farm", 9.0)]
    assert list(compute_differences(run)) == [sample("farm", 2.5, "added latency p50, ms")]
    assert list(compute_differences(run[1:])) == []


def test_every_requirement_is_about_a_measured_case():
    cases = {f"{accounts} accounts, {service:g} s" for accounts, service in CompareScale().grid}
    utilisation = {requirement.case for requirement in REQUIREMENTS if requirement.scenario == "utilisation"}
    streaming = {requirement.case for requirement in REQUIREMENTS if requirement.scenario == "streaming"}
    assert utilisation <= cases
    assert streaming <= {f"{count} streams" for count in CompareScale().streams}
    assert CompareScale.__dataclass_fields__.keys() == vars(SMOKE).keys()


def test_a_report_has_tables_plots_and_the_figures_of_each_run(tmp_path: Path):
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


def test_requirements_without_figures_are_not_reported():
    assert format_requirements(Figures([])) == ""
