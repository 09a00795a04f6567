"""What came out, as lines of a table: two figures, their ratio with its spread, and the bar it is held to."""

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

GIGABYTE = 1e9
CLOSE = 1e-4
"""How near the first step's values have to be, relatively: the same work is done on both sides."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One figure of both sides. `ratio` is TRL's by ours, so that more is better; `pairs` are the ratios it is of."""

    case: str
    what: str
    unit: str
    ours: float
    trl: float
    pairs: tuple[float, ...] = ()
    bar: float | None = None

    @property
    def ratio(self) -> float:
        """The median over pairs of steps, else the two figures' ratio."""
        return statistics.median(self.pairs) if self.pairs else self.trl / self.ours

    @property
    def quartiles(self) -> tuple[float, float]:
        """The first and the third quartile of the pairs."""
        if len(self.pairs) < 2:
            return self.ratio, self.ratio
        first, _, third = statistics.quantiles(self.pairs, n=4, method="inclusive")
        return first, third

    @property
    def verdict(self) -> str:
        """Whether the bar is met."""
        return "" if self.bar is None else "met" if self.ratio >= self.bar else "missed"

    def as_json(self) -> dict[str, Any]:
        """Return all of it, rounded."""
        more = {"ratio": self.ratio, "quartiles": self.quartiles, "ratio_of_medians": self.trl / self.ours}
        found: dict[str, Any] = rounded(asdict(self) | more | {"verdict": self.verdict})
        return found


def rounded(value: Any) -> Any:
    """Round numbers to four figures, also within lists and objects."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(each) for key, each in value.items()}
    return [rounded(each) for each in value] if isinstance(value, list | tuple) else value


def table(lines: Sequence[Line]) -> str:
    """Return the lines as text, one beneath the other."""
    heads = ("case", "what", "ours", "TRL", "ratio", "quartiles", "bar", "")
    rows = [heads]
    for line in lines:
        spread = "{:.2f} to {:.2f}".format(*line.quartiles) if line.pairs else ""
        figures = (f"{figure:.2f} {line.unit}" for figure in (line.ours, line.trl))
        bar = "" if line.bar is None else f"{line.bar:g}"
        rows.append((line.case, line.what, *figures, f"{line.ratio:.2f}", spread, bar, line.verdict))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)) for row in rows)


def difference(ours: dict[str, float], theirs: dict[str, float]) -> float:
    """Return the greatest relative difference of values that both sides report of a step."""
    shared = (ours.keys() & theirs.keys()) - {"seconds", "cpu_seconds"}
    return max(abs(ours[name] - theirs[name]) / abs(theirs[name]) for name in shared)
