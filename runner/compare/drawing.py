"""A comparison as a drawing: each variant's curve over the steps, and the metric over what was swept."""

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from runner.compare.difference import mean, spread
from runner.compare.results import Variant, kind
from runner.compare.sentences import words
from runner.compare.verdict import Comparison

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMED = 60
"""Characters of a name that are shown."""
DRAWN = 20
"""Curves and bars beyond the best so many would hide each other."""


def draw(found: Comparison) -> "Figure":
    """Return a matplotlib figure, drawn without a display."""
    from matplotlib.figure import Figure

    # The models of an evaluation were not trained here, and have no curves.
    curved = any(run.curves for run in found.results)
    # Not pyplot's: that keeps every figure in memory, and may look for a display.
    figure = Figure(figsize=(12 if curved else 6, 4.5), layout="constrained")
    if curved:
        _curves(figure.add_subplot(1, 2, 1), found)
    _sweep(figure.add_subplot(1, 1 + curved, 1 + curved), found)
    return figure


def parts(found: Comparison) -> list["Figure"]:
    """Return the same as drawings of their own, which a page sets side by side or, on a phone, below each other."""
    from matplotlib.figure import Figure

    # The models of an evaluation have no curves.
    curved = any(run.curves for run in found.results)
    drawn = [*[_curves] * curved, _sweep]
    figures = [Figure(figsize=(6, 4.5), layout="constrained") for _ in drawn]
    for figure, draw_part in zip(figures, drawn, strict=True):
        draw_part(figure.add_subplot(), found)
    return figures


def save(figure: "Figure", path: Path) -> None:
    """Write the drawing as a PNG."""
    figure.savefig(path, dpi=150)


def svg(figure: "Figure") -> str:
    """Return the drawing as a figure of a page, in the page's own colours of ink and paper."""
    written = io.StringIO()
    figure.savefig(written, format="svg")
    text = written.getvalue()
    # matplotlib writes black and white as these, so that a dark page needs no second drawing.
    text = text.replace("#000000", "currentColor").replace("#ffffff", "var(--page)")
    return f"<figure>{text[text.index('<svg') :]}</figure>"


def _curves(axes: "Axes", found: Comparison) -> None:
    """Draw the metric over the steps, or what was measured in training where it was judged but once."""
    everyone = (*found.ranked, *found.unranked)[:DRAWN]
    judged = any(len(run.curves.get(found.metric, ())) > 1 for each in everyone for run in each.runs)
    name = found.metric if judged else "train/loss"
    for number, variant in enumerate(everyone):
        for order, run in enumerate(variant.runs):
            points = run.curves.get(name, ())
            axes.plot(
                [at for at, _ in points], [value for _, value in points], color=f"C{number % 10}",
                linestyle=("-", "--", ":", "-.")[order % 4], marker="o" if len(points) < 15 else "", markersize=3,
                label=_short(variant.name) if order == 0 else None,
            )  # fmt: skip
    axes.set(xlabel="optimizer step", ylabel=words(name, kind(name, found.results)), title=f"{name} over the steps")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)


def _sweep(axes: "Axes", found: Comparison) -> None:
    """Draw the metric over the one number that was swept, else a bar for each variant."""
    axes.set(ylabel=words(found.metric, found.kind), title=f"{found.metric} at the end")
    values = [mean(each.values(found.metric)) for each in found.ranked]
    around = [spread(each.values(found.metric)) or 0.0 for each in found.ranked]
    places = _numbers(found.ranked, found.keys)
    best = found.ranked[:DRAWN]
    if places:
        swept, heights, errors = zip(*sorted(zip(places, values, around, strict=True)), strict=True)
        axes.errorbar(swept, heights, errors, fmt="o-", capsize=4)
        # Rates and betas are swept by factors; 0.5, 1, 2 is still readable on a linear axis.
        if min(places) > 0 and max(places) >= 5 * min(places):
            axes.set_xscale("log")
        axes.set(xlabel=found.keys[0])
    else:
        colors = [f"C{number % 10}" for number in range(len(best))]
        axes.bar(range(len(best)), values[:DRAWN], yerr=around[:DRAWN], capsize=4, color=colors)
        axes.set_xticks(range(len(best)), [_short(each.name) for each in best], rotation=20, ha="right", fontsize=8)
    axes.grid(alpha=0.3, axis="y")


def _short(name: str) -> str:
    return name if len(name) <= NAMED else f"{name[: NAMED - 1]}…"


def _numbers(ranked: Sequence[Variant], keys: Sequence[str]) -> list[float]:
    """Return the value of each variant for the one key in which they differ, if that is a number."""
    if len(keys) != 1 or len(ranked) < 2:
        return []
    values = [each.runs[0].params.get(keys[0]) for each in ranked]
    return [float(value) for value in values if isinstance(value, int | float) and not isinstance(value, bool)] * (
        all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    )
