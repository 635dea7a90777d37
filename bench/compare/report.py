"""Writes and reads a comparison's results: JSON, Markdown and plots in one folder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from bench.compare import plots
from bench.compare.figures import Figure, Figures, Sample
from bench.compare.requirements import REQUIREMENTS

HEAD = """# What was measured

Made by `./farm bench`. Medians of several runs, minimum and maximum in brackets; in each run every system had the same
load, on the same machine, and every response was checked against its request. `direct` is the simulated upstream
without anything in front of it.

"""


def write(folder: Path, figures: Figures, facts: Mapping[str, object]) -> None:
    """Writes results.json, README.md and a plot per scenario.

    `facts` describe the run; `measured` among them maps each scenario to when and how it was measured.
    """
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{**asdict(figure), "median": figure.median} for figure in figures.all]
    (folder / "results.json").write_text(json.dumps({**facts, "figures": rows}, indent=1) + "\n")
    for scenario in figures.scenarios:
        plots.draw(figures, scenario, folder / f"{scenario}.svg")
    (folder / "README.md").write_text(format_markdown(figures, facts))


def read(folder: Path) -> tuple[list[Sample], dict[str, str]]:
    """The samples of an earlier run, and when each scenario was measured; both empty when there was none."""
    file = folder / "results.json"
    if not file.exists():
        return [], {}
    results = json.loads(file.read_text())
    samples = [
        Sample(figure["scenario"], figure["case"], figure["system"], figure["name"], value)
        for figure in results["figures"]
        for value in figure["values"]
    ]
    return samples, results["measured"]


def format_markdown(figures: Figures, facts: Mapping[str, object]) -> str:
    measured = facts["measured"]
    assert isinstance(measured, Mapping)
    parts = [HEAD]
    parts.append("".join(f"- {name}: {value}\n" for name, value in facts.items() if name != "measured"))
    parts.append("".join(f"- {scenario}: {when}\n" for scenario, when in measured.items()) + "\n")
    parts.append(format_requirements(figures))
    for scenario in figures.scenarios:
        parts.append(f"## {scenario}\n\n![{scenario}]({scenario}.svg)\n\n")
        parts += [format_table(case, of_case) for case, of_case in figures.group_by_case(scenario).items()]
    return "".join(parts)


def format_requirements(figures: Figures) -> str:
    """A Markdown table of the requirements that were measured; '' when there are none."""
    lines = ["## Bounds\n\n| bound | measured | kept |\n| --- | --- | --- |\n"]
    for requirement in REQUIREMENTS:
        if evaluated := requirement.evaluate(figures):
            value, bound, holds = evaluated
            computed = f" (= {bound:.4g})" if requirement.baseline else ""
            lines.append(f"| {requirement}{computed} | {value:.4g} | {'yes' if holds else '**no**'} |\n")
    return "".join(lines) + "\n" if len(lines) > 1 else ""


def format_table(case: str, figures: Iterable[Figure]) -> str:
    """A Markdown table with a row per figure name and a column per system."""
    cells = {(figure.name, figure.system): str(figure) for figure in figures}
    systems = list(dict.fromkeys(system for _, system in cells))
    names = list(dict.fromkeys(name for name, _ in cells))
    lines = [f"| {case} | {' | '.join(systems)} |", "| --- |" + " --- |" * len(systems)]
    lines += [f"| {name} | {' | '.join(cells.get((name, system), '') for system in systems)} |" for name in names]
    return "\n".join(lines) + "\n\n"
