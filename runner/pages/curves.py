"""Curves over the steps as inline drawings (SVG) whose colours and letters are those of the page.

A run's page is written at the end of every run: matplotlib, which draws comparisons, would take a second of it
(0.6 s to import, 0.2 s for each drawing, on one core).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Points = Sequence[tuple[int, float]]

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 58, 12, 12, 40
"""Of a drawing, in units that are pixels where it has room; a page of 78rem has three in a row."""
FEW = 15
"""Curves of fewer points have them marked."""
MOST = 400
"""Points that a curve is drawn with: more are not seen, and make a page large."""


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what is written there."""

    at: float
    label: str


@dataclass(frozen=True)
class Curve:
    """A line with its name, as places in the drawing."""

    name: str
    points: tuple[tuple[float, float], ...]

    @property
    def path(self) -> str:
        """The places as an attribute has them."""
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in self.points)

    @property
    def marked(self) -> bool:
        """Whether each point is marked."""
        return len(self.points) < FEW


@dataclass(frozen=True)
class Drawing:
    """A drawing: its title, its curves, the ticks of both axes."""

    title: str
    curves: tuple[Curve, ...]
    steps: tuple[Tick, ...]
    values: tuple[Tick, ...]


def drawing(title: str, series: Mapping[str, Points]) -> Drawing | None:
    """Return the drawing of some curves by their names; None where none has two points that are numbers."""
    whole = {name: [each for each in points if math.isfinite(each[1])] for name, points in series.items()}
    drawn = {name: points for name, points in whole.items() if points}
    if not any(len(points) > 1 for points in drawn.values()):
        return None
    # The same axes for all: curves in one drawing are to be compared.
    steps = [step for points in drawn.values() for step, _ in points]
    values = [value for points in drawn.values() for _, value in points]
    low, high = min(values), max(values)
    # A flat curve lies in the middle.
    room = (high - low) * 0.05 or abs(high) * 0.1 or 1.0
    low, high = low - room, high + room
    first, last = min(steps), max(max(steps), min(steps) + 1)

    def x(step: float) -> float:
        return LEFT + (step - first) / (last - first) * (WIDTH - LEFT - RIGHT)

    def y(value: float) -> float:
        return HEIGHT - BOTTOM - (value - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    return Drawing(
        title=title,
        curves=tuple(
            Curve(name, tuple((x(step), y(value)) for step, value in thinned(points))) for name, points in drawn.items()
        ),
        steps=tuple(Tick(x(at), f"{at:g}") for at in round_numbers(first, last) if at == round(at)),
        values=tuple(Tick(y(at), written(at)) for at in round_numbers(low, high)),
    )


def written(value: float) -> str:
    """Return a value on an axis: as a decimal down to a millionth, so that learning rates on one axis look alike."""
    return f"{value:.7f}".rstrip("0") if 1e-6 <= abs(value) < 1e-4 else f"{value:.6g}"


def thinned(points: Points) -> Points:
    """Return at most `MOST` points, evenly chosen, the last one among them."""
    every = math.ceil(len(points) / MOST)
    return [*points[:-1:every], points[-1]] if every > 1 else points


def round_numbers(low: float, high: float, about: int = 5) -> list[float]:
    """Return some round numbers within a range: multiples of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / about
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    first, last = math.ceil(low / step), math.floor(high / step)
    # Rounded to the step's own digits: 3 * 0.1 is not written as 0.30000000000000004.
    digits = max(0, -math.floor(math.log10(step)))
    return [round(number * step, digits) for number in range(first, last + 1)]


TEMPLATE = f"""<figure>
<figcaption class="quiet">{{{{ drawing.title }}}}
{{% for curve in drawing.curves %}}<span style="color: var(--c{{{{ loop.index0 % 4 }}}})">&#9632;</span>
{{{{ curve.name }}}} {{% endfor %}}</figcaption>
<svg class="curves" role="img" aria-label="{{{{ drawing.title }}}}" width="{WIDTH}" height="{HEIGHT}"
 viewBox="0 0 {WIDTH} {HEIGHT}" font-size="11">
{{% for tick in drawing.values %}}<line x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{{{{ tick.at }}}}" y2="{{{{ tick.at }}}}"
 stroke="currentColor" stroke-opacity=".15"/><text x="{LEFT - 6}" y="{{{{ tick.at + 4 }}}}" text-anchor="end">
{{{{- tick.label }}}}</text>
{{% endfor %}}
{{% for tick in drawing.steps %}}<text x="{{{{ tick.at }}}}" y="{HEIGHT - BOTTOM + 16}" text-anchor="middle">
{{{{- tick.label }}}}</text>
{{% endfor %}}
<text x="{(WIDTH + LEFT - RIGHT) / 2}" y="{HEIGHT - 6}" text-anchor="middle">step</text>
{{% for curve in drawing.curves %}}<g fill="var(--c{{{{ loop.index0 % 4 }}}})">
<polyline points="{{{{ curve.path }}}}" fill="none" stroke="var(--c{{{{ loop.index0 % 4 }}}})" stroke-width="1.8"/>
{{% if curve.marked %}}{{% for x, y in curve.points %}}<circle cx="{{{{ x }}}}" cy="{{{{ y }}}}" r="2.4"/>{{% endfor %}}
{{% endif %}}</g>
{{% endfor %}}
</svg>
</figure>
"""
"""How a `drawing` is written, as a template of `base.py`'s kind."""
