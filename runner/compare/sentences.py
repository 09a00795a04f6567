"""A difference in words: who beats whom by how much, what is no worse, how many rows would decide. Pure."""

import math

from runner import methods
from runner.compare.difference import LEAST_ROWS, Difference
from runner.compare.interval import CONFIDENCE, rows_needed
from runner.methods import Metric


def words(metric: str, kind: Metric | None = None) -> str:
    """Return a metric's name as it is said: `reward accuracy`, of what is no held-out row's `train loss`."""
    split, _, _ = metric.removeprefix("eval/").rpartition("/")
    return f"{split} {(kind or methods.metric(metric)).label}".replace("/", " ").strip()


def amount(kind: Metric, value: float, signed: bool = False) -> str:
    """Return a difference as it is said: an accuracy's or a share's in points of a hundred."""
    sign = "+" if signed else ""
    if kind.is_share:
        return f"{100 * value:{sign}.1f}" + (" points" if signed else "")
    return f"{value:{sign}.3g}"


def sentence(found: Difference) -> str:
    """Say in a sentence what came out, and where there is a margin, which one is no worse."""
    if not found.rows:
        return f"{found.name} and {found.other} have judged no held-out row in common, so they cannot be compared"
    text = _decided(found) if found.significant else _undecided(found)
    return text if found.margin is None else f"{text}; {_margin(found)}"


def _decided(found: Difference) -> str:
    seen = found if found.better else found.turned
    # Stated from the winner's side, whichever that is.
    alone = "" if min(found.seeds) > 1 else "; one seed each, another may come out otherwise"
    alone = alone if found.seeds == (1, 1) else alone.replace("one seed each", "one seed on a side")
    return (
        f"{seen.name} beats {seen.other}: {words(seen.metric, seen.kind)} {amount(seen.kind, seen.mean, True)}, "
        f"{CONFIDENCE:.0%} interval {amount(seen.kind, seen.low)} to {amount(seen.kind, seen.high)}, "
        f"{seen.rows:,} rows{_family(seen, ', p')}{alone}"
    )


def _undecided(found: Difference) -> str:
    metric = words(found.metric, found.kind)
    if not found.apart.any():
        return (
            # Of a grader that gives each answer the same score, say: more rows would not help.
            f"{found.name} and {found.other} come out alike in {metric} on each of {found.rows:,} rows; "
            "another metric may distinguish them"
        )
    more = f"; about {found.enough:,} would be needed" if found.enough and found.enough > found.rows else ""
    if found.rows < LEAST_ROWS and (found.enough or 0) < LEAST_ROWS:
        # Whatever the interval: its sentence would contradict the figures next to it.
        more = f"; fewer than {LEAST_ROWS} rows decide nothing"
    return (
        f"no significant difference in {metric} between {found.name} and {found.other} with these "
        f"{found.rows:,} rows{_family(found, ' (p')}{more}"
    )


def _family(found: Difference, before: str) -> str:
    if found.family == 1:
        return ""
    p = "<0.001" if found.p < 0.001 else f"={found.p:.2g}"
    return f"{before}{p} corrected for {found.family} comparisons" + (")" if "(" in before else "")


def _margin(found: Difference) -> str:
    """Say of the one behind whether it is no worse by more than the margin; where it is not, of the other one."""
    assert found.margin is not None
    margin = amount(found.kind, found.margin, signed=True).removeprefix("+")
    behind = found if (found.mean < 0) != found.kind.lower_is_better else found.turned
    if found.rows < LEAST_ROWS:
        return f"with fewer than {LEAST_ROWS} rows nothing is said of a margin of {margin}"
    what = words(found.metric, found.kind)
    if behind.no_worse:
        at_worst = amount(found.kind, max(behind.worst, 0.0))
        return f"{behind.name} is no worse than {behind.other} in {what} by more than {margin}: {at_worst} at worst"
    # Of one that is better beyond chance it goes without saying.
    first = behind.turned.no_worse and not found.significant
    opening = f"{behind.other} is no worse than {behind.name} in {what} by more than {margin}; " * first
    # On the side on which the one behind is: the value that an interval of more rows would leave out.
    sign = 1 if found.kind.lower_is_better else -1
    enough = rows_needed(behind.apart, sign * found.margin, found.confidence)
    if sign * (behind.low if sign > 0 else behind.high) > found.margin:
        return f"{opening}{behind.name} is worse than {behind.other} by more than {margin}"
    if not found.apart.any():
        # The interval of rows that all come out alike shrinks as their number grows.
        enough = math.ceil(behind.worst * (found.rows + 2) / found.margin)
    more = f"; about {enough:,} rows would be needed" if enough and enough > found.rows else ""
    return f"{opening}whether {behind.name} is worse than {behind.other} by more than {margin} cannot be decided{more}"
