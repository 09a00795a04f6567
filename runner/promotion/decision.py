"""Whether a model is promoted: better by its interval on the same held-out rows, or no worse and cheaper. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from runner.compare import verdict
from runner.compare.difference import LEAST_ROWS, Difference, compare
from runner.compare.results import Result, Variant, variants
from runner.compare.results import graders as graders_of
from runner.compare.sentences import amount, sentence, words
from runner.compare.verdict import Comparison
from runner.errors import RequestError
from runner.promotion.contenders import Contender
from runner.promotion.cost import Cheaper


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether, and the sentence that says why; the difference and the comparison are the evidence."""

    promote: bool
    why: str
    difference: Difference
    comparison: Comparison


def decide(
    one: Contender, other: Contender, metric: str | None, margin: float | None, cheaper: Callable[[], Cheaper]
) -> Decision:
    """Say whether `one` takes the place of `other`, by a metric, with a margin where no worse is enough.

    Raises `RequestError` for a metric that neither has, with those that there are.
    """
    compared = [one.result, other.result]
    found = verdict.make(compared, _metric(metric, compared), margin)
    # By their own names: a comparison calls variants by the keys that differ, which may be many.
    ours, theirs = (Variant(each.called, (each.result,)) for each in (one, other))
    difference = replace(compare(found.metric, ours, theirs), margin=margin)
    promote, why = _decided(one, other, difference, cheaper)
    return Decision(promote=promote, why=why, difference=difference, comparison=found)


def _metric(asked: str | None, compared: Sequence[Result]) -> str | None:
    """Return the metric: the one asked for, a grader by its name alone, or the first grader that both have."""
    if asked is not None:
        named = asked if "/" in asked else f"eval/{asked}"
        known = set.intersection(*({*each.metrics} for each in compared))
        if named not in known:
            both = ", ".join(sorted(each for each in known if each.startswith("eval/"))) or "none"
            raise RequestError(f"metric: got {asked}, which was not measured of both; allowed: {both}.")
        return named
    # Graders first: they judge what users get, whatever the method; a loss or a reward's accuracy does not.
    return next(iter(graders_of(compared)), None)


def _decided(one: Contender, other: Contender, found: Difference, cheaper: Callable[[], Cheaper]) -> tuple[bool, str]:
    if len(variants([one.result, other.result])) == 1:
        return False, (
            f"{one.called} and {other.called} are runs of one request, which differ in their seed only: what sets them "
            "apart is chance"
        )
    if found.better:
        return True, sentence(replace(found, margin=None))
    if 0 < found.rows < LEAST_ROWS:
        return False, f"{found.rows} rows were judged by both, and {LEAST_ROWS} are needed"
    if found.no_worse and found.margin is not None:
        # From this side: a comparison's own sentence says it of the one that is behind, which may be the other.
        margin, worst = amount(found.kind, found.margin), amount(found.kind, max(found.worst, 0.0))
        said = f"{found.name} is no worse than {found.other} in {words(found.metric, found.kind)} by more than {margin}"
        price = cheaper()
        return price.yes, f"{said}: {worst} at worst, {found.rows} rows; {price.sentence}"
    return False, sentence(found)
