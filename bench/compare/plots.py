"""A plot for each scenario, as SVG: a panel for each figure that is worth one, a bar for each system and case."""

from pathlib import Path

import matplotlib as mpl
from matplotlib.figure import Figure as Canvas

from bench.compare.figures import Figures

#: Scenario -> the figures that get a panel.
PANELS = {
    "utilisation": ("share of the ideal", "collisions", "errors at clients"),
    "overhead": ("requests/s", "CPU ms per request: all", "added latency p50, ms", "added latency p99, ms"),
    "streaming": ("share of the ideal rate", "CPU us per chunk: all", "added gap p99, ms", "added first byte p50, ms"),
    "growth": ("CPU ms per request", "MB PSS", "cost per request"),
    "start": ("seconds to ready", "MB PSS idle", "MB PSS after a load"),
}
#: Those whose values are magnitudes apart.
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
#: Each system has its colour in every plot.
COLOURS = {
    name: f"C{i}"
    for i, name in enumerate(("farm", "haproxy", "litellm", "portkey", "portkey-pass", "nginx", "", "direct"))
}
#: The text stays text, and the same figures give the same bytes.
mpl.rcParams.update({"svg.fonttype": "none", "svg.hashsalt": "farm", "font.size": 8})


def draw(figures: Figures, scenario: str, file: Path) -> None:
    """Draws the scenario's figures."""
    panels = PANELS[scenario]
    canvas = Canvas(figsize=(9, 2.6 * len(panels)), layout="constrained")
    for place, name in enumerate(panels, 1):
        axes = canvas.add_subplot(len(panels), 1, place)
        bars(axes, figures, scenario, name)
        axes.set_title(name)
    canvas.suptitle(scenario)
    canvas.savefig(file, metadata={"Date": None})


def bars(axes: mpl.axes.Axes, figures: Figures, scenario: str, name: str) -> None:
    """Bars side by side: a group for each case, a bar for each system, and a line from the least to the most run."""
    found = [one for one in figures.all if (one.scenario, one.name) == (scenario, name)]
    cases = list(dict.fromkeys(one.case for one in found))
    systems = list(dict.fromkeys(one.system for one in found))
    width = 0.8 / max(1, len(systems))
    for index, system in enumerate(systems):
        mine = [one for one in found if one.system == system]
        places = [cases.index(one.case) + (index - (len(systems) - 1) / 2) * width for one in mine]
        spread = [[one.median - min(one.values) for one in mine], [max(one.values) - one.median for one in mine]]
        drawn = axes.bar(
            places,
            [one.median for one in mine],
            width,
            label=system,
            color=COLOURS[system],
            yerr=spread,
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
