"""Draws an SVG plot per scenario, with a panel per figure and a bar per system and case."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from bench.compare.figures import Figures

#: Scenario -> the names of its panels' figures.
PANELS = {
    "utilisation": ("share of the ideal", "collisions", "errors at clients"),
    "overhead": ("requests/s", "CPU ms per request: all", "added latency p50, ms", "added latency p99, ms"),
    "streaming": ("share of the ideal rate", "CPU us per chunk: all", "added gap p99, ms", "added first byte p50, ms"),
    "growth": ("CPU ms per request", "MB PSS", "cost per request"),
    "start": ("seconds to ready", "MB PSS idle", "MB PSS after a load"),
}
#: Figures on a logarithmic axis, because the systems are orders of magnitude apart.
LOGARITHMIC = (
    "requests/s",
    "CPU ms per request: all",
    "added latency p50, ms",
    "added latency p99, ms",
    "CPU us per chunk: all",
    "added gap p99, ms",
    "added first byte p50, ms",
    "seconds to ready",
    "MB PSS idle",
    "MB PSS after a load",
)
#: System -> its colour, the same in every plot.
COLOURS = {
    name: f"C{i}"
    for i, name in enumerate(("farm", "haproxy", "litellm", "portkey", "portkey-pass", "nginx", "", "direct"))
}
# Text stays text, and the same figures yield the same bytes.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "farm", "font.size": 8})


def draw(figures: Figures, scenario: str, file: Path) -> None:
    panels = PANELS[scenario]
    canvas = Canvas(figsize=(9, 2.6 * len(panels)), layout="constrained")
    for position, name in enumerate(panels, 1):
        axes = canvas.add_subplot(len(panels), 1, position)
        draw_bars(axes, figures, scenario, name)
        axes.set_title(name)
    canvas.suptitle(scenario)
    canvas.savefig(file, metadata={"Date": None})


def draw_bars(axes: mpl.axes.Axes, figures: Figures, scenario: str, name: str) -> None:
    """A group per case and a bar per system, with an error bar from the lowest to the highest run."""
    shown = [figure for figure in figures.all if (figure.scenario, figure.name) == (scenario, name)]
    cases = list(dict.fromkeys(figure.case for figure in shown))
    systems = list(dict.fromkeys(figure.system for figure in shown))
    width = 0.8 / max(1, len(systems))
    for index, system in enumerate(systems):
        of_system = [figure for figure in shown if figure.system == system]
        offset = (index - (len(systems) - 1) / 2) * width
        positions = [cases.index(figure.case) + offset for figure in of_system]
        below = [figure.median - min(figure.values) for figure in of_system]
        above = [max(figure.values) - figure.median for figure in of_system]
        drawn = axes.bar(
            positions,
            [figure.median for figure in of_system],
            width,
            label=system,
            color=COLOURS[system],
            yerr=[below, above],
            error_kw={"lw": 0.7},
        )
        axes.bar_label(drawn, fmt="%.3g", fontsize=6, padding=1)
    if name in LOGARITHMIC:
        axes.set_yscale("log", nonpositive="clip")
    axes.set_xticks(range(len(cases)), cases)
    axes.margins(y=0.15)
    axes.spines[["top", "right"]].set_visible(False)
    if systems:
        axes.legend(fontsize=7, ncols=len(systems), loc="upper left", bbox_to_anchor=(0, 1.02), frameon=False)
