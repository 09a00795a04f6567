"""What a run takes: tokens, seconds and dollars, as values and in words."""

from dataclasses import dataclass

from runner.data.splits import Split


@dataclass(frozen=True)
class Tokens:
    """Tokens of each split, a shared prompt counted once, and whether all rows were counted."""

    splits: dict[Split, int]
    exact: bool


@dataclass(frozen=True)
class Cost:
    """The remaining cost of a job, as expected: seconds of work and dollars; None where that is not known.

    `spent` are the dollars that it has cost so far.
    """

    seconds: float | None
    dollars: float | None
    spent: float | None = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        """Return what both take: not known where one is not."""
        pairs = ((self.seconds, other.seconds), (self.dollars, other.dollars), (self.spent, other.spent))
        # None is not zero: a sum with something unknown in it would be reported as a price that is too low.
        return Cost(*(None if None in pair else sum(filter(None, pair)) for pair in pairs))


def price(dollars: float) -> str:
    """Return `about $1,234.50`, or `less than $0.01`."""
    return f"about ${dollars:,.2f}" if dollars >= 0.01 else "less than $0.01"


def duration(seconds: float) -> str:
    """Return `0.4 s`, `8 s`, `2 min 5 s` or `1 h 10 min`."""
    if seconds < 60:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    # Rounded before it is divided: 119.7 s are 2 min 0 s, and never 1 min 60 s.
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"
