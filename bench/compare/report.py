"""What was measured, as JSON, Markdown and plots in one folder."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path

from bench.compare import plots
from bench.compare.figures import PROMISES, Figure, Figures, Sample

HEAD = """# What was measured

Made by `./farm bench`. Medians of several runs, least and most in brackets; in each run every system had the same load,
on the same machine, and every answer was checked against its request. `direct` is the simulated upstream without
anything in front of it.

"""


def write(folder: Path, figures: Figures, facts: Mapping[str, object]) -> None:
    """Writes results.json, README.md and a plot for each scenario."""
    folder.mkdir(parents=True, exist_ok=True)
    found = [{**asdict(one), "median": one.median} for one in figures.all]
    (folder / "results.json").write_text(json.dumps({**facts, "figures": found}, indent=1) + "\n")
    for scenario in figures.scenarios:
        plots.draw(figures, scenario, folder / f"{scenario}.svg")
    (folder / "README.md").write_text(markdown(figures, facts))


def read(folder: Path) -> tuple[list[Sample], dict[str, str]]:
    """What an earlier run has left there: its samples, and when each scenario was measured."""
    file = folder / "results.json"
    if not file.exists():
        return [], {}
    found = json.loads(file.read_text())
    samples = [
        Sample(one["scenario"], one["case"], one["system"], one["name"], value)
        for one in found["figures"]
        for value in one["values"]
    ]
    return samples, found["measured"]


def markdown(figures: Figures, facts: Mapping[str, object]) -> str:
    """A table for each scenario."""
    measured = facts["measured"]
    assert isinstance(measured, Mapping)
    parts = [HEAD]
    parts.append("".join(f"- {name}: {value}\n" for name, value in facts.items() if name != "measured"))
    parts.append("".join(f"- {scenario}: {when}\n" for scenario, when in measured.items()) + "\n")
    parts.append(promises(figures))
    for scenario in figures.scenarios:
        parts.append(f"## {scenario}\n\n![{scenario}]({scenario}.svg)\n\n")
        parts += [table(case, of_case) for case, of_case in figures.by_case(scenario).items()]
    return "".join(parts)


def promises(figures: Figures) -> str:
    """What was promised, and what came of it."""
    lines = ["## Bounds\n\n| bound | measured | kept |\n| --- | --- | --- |\n"]
    for promise in PROMISES:
        if found := promise.kept(figures):
            value, bound, kept = found
            beside = f" (= {bound:.4g})" if promise.beside else ""
            lines.append(f"| {promise}{beside} | {value:.4g} | {'yes' if kept else '**no**'} |\n")
    return "".join(lines) + "\n" if len(lines) > 1 else ""


def table(case: str, of_case: Iterable[Figure]) -> str:
    """The figures of a case: a line a name, a column a system."""
    cells = {(one.name, one.system): str(one) for one in of_case}
    systems = list(dict.fromkeys(system for _, system in cells))
    names = list(dict.fromkeys(name for name, _ in cells))
    lines = [f"| {case} | {' | '.join(systems)} |", "| --- |" + " --- |" * len(systems)]
    lines += [f"| {name} | {' | '.join(cells.get((name, system), '') for system in systems)} |" for name in names]
    return "\n".join(lines) + "\n\n"
