"""A comparison as a whole, and how it is written down: what differs, who is best, how sure that is. Pure.

`Comparison` holds the numbers; `as_json` and `markdown` say them. The page is in page.py, the terminal's tables are in
output.py.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TypedDict

from runner import methods
from runner.compare.difference import Difference, compare, corrected, mean, rank, spread
from runner.compare.results import Result, Variant, differing, graders, kind, variants
from runner.compare.sentences import sentence, words
from runner.errors import RequestError
from runner.methods import Metric

HEADLINES = [f"eval/{name}" for name in methods.headlines()]
"""What runs are ranked by if nothing is said: the first that all have. Losses of different betas do not compare."""
MEASURED = [f"eval/{each.name}" for each in methods.metrics().values() if each.shown]
"""Metrics shown next to the one compared, if they were measured."""
ANSWERS = "eval/in_style"
"""What answers to held-out prompts are judged by, wherever the model is, where no grader was asked for."""
EVERY_GRADER = "graders"
"""In place of a metric: all the graders that all have."""
NEXT = 20
"""With so many that come next the best one is compared; what lies behind them is nobody's question."""


class RunJson(TypedDict):
    """A run as a comparison names it."""

    folder: str
    seed: int
    status: str


class VariantJson(TypedDict):
    """A variant: the keys that set it apart, its metrics as means over its runs, and these."""

    name: str
    values: dict[str, object]
    metrics: dict[str, float]
    runs: list[RunJson]


class ComparisonJson(TypedDict):
    """What `comparison.json` holds: the variants, best first, and how the best one differs from each other one."""

    metric: str
    further: list[str]
    graders: list[str]
    lower_is_better: bool
    verdict: str
    sentences: list[str]
    keys: list[str]
    variants: list[VariantJson]
    differences: list[dict[str, object]]


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Variants, best first, by a metric; how the best one differs from each other one in it and in `further` ones."""

    metric: str
    further: tuple[str, ...] = ()
    keys: tuple[str, ...]
    ranked: tuple[Variant, ...]
    unranked: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    results: tuple[Result, ...]

    @property
    def sentences(self) -> list[str]:
        """Say what came out, and what did not."""
        found = [sentence(each) for each in self.differences]
        if len(self.ranked) == 1 and len(self.ranked[0].runs) > 1:
            found.append(
                f"{len(self.ranked[0].runs)} runs of one request, which differ in their seed only: "
                "what sets them apart is chance, and none of them wins"
            )
        if self.metric == ANSWERS and not self.ranked and _methods_differ(self.results):
            found.append(
                "different methods measure different things, so they are compared by their answers, and none was "
                "judged: graders (or dataset.style) say what a good one is, evaluation.samples how many are given"
            )
        return found

    @property
    def kind(self) -> Metric:
        """How the metric is said, and which direction is better."""
        return kind(self.metric, self.results)

    @property
    def leading(self) -> tuple[Difference, ...]:
        """The differences that decide who is best: those in the metric itself, which come first."""
        return self.differences[: min(NEXT, max(0, len(self.ranked) - 1))]

    @property
    def verdict(self) -> str:
        """Say who is best, and whether that can be trusted."""
        if not self.ranked:
            # Without a style there is no such metric: what is missing are grades, as `sentences` says.
            missing = "graded answers" if self.metric == ANSWERS else self.metric
            return f"nothing to rank: no run has {missing} yet"
        best = self.ranked[0]
        least = "least " if self.kind.lower_is_better else ""
        text = f"best by {least}{words(self.metric, self.kind)}: {best.name} ({figure(best, self.metric)})"
        # A difference in answers, in place of a metric without rows, decides nothing about the metric.
        unsure = [each for each in self.leading if each.metric != self.metric or not each.better]
        if not self.leading:
            return text
        if not unsure:
            compared_all = len(self.leading) == len(self.ranked) - 1
            return f"{text}, better than every other beyond chance" if compared_all else f"{text}, beyond chance"
        if len(self.leading) == 1:
            return f"{text}, but the other one does not differ significantly"
        return f"{text}, but {len(unsure)} of {len(self.leading)} others do not differ significantly"


def make(
    results: Sequence[Result], metric: str | Sequence[str] | None = None, margin: float | None = None
) -> Comparison:
    """Compare by a metric, or by several, of which the first ranks and which are corrected for being several.

    `graders` means all graders that all have. Without a metric it is the first headline that every finished run has,
    else the first grader; different methods are compared by their answers. `margin`, in the metric's own unit, is what
    counts as no worse. Raises `RequestError` where no run has a metric, with those that there are, or for no margin.
    """
    if margin is not None and not 0 < margin < math.inf:
        raise RequestError(f"margin: got {margin:g}; allowed: a number above 0, in the metric's own unit.")
    taking_part = variants(results)
    asked = [metric] if isinstance(metric, str) else metric or []
    metrics = _known(asked, results) or [_metric(results)]
    ranked = rank(metrics[0], taking_part)
    # The best with each other one, not all pairs: of a thousand trials these would be half a million.
    others = ranked[1 : 1 + NEXT]
    found = [_difference(metrics[0], ranked[0], each) for each in others]
    found += [compare(name, ranked[0], each) for name in metrics[1:] for each in others]
    return Comparison(
        metric=metrics[0],
        further=tuple(metrics[1:]),
        keys=tuple(differing(results)),
        ranked=tuple(ranked),
        unranked=tuple(each for each in taking_part if each not in ranked),
        differences=tuple(replace(each, margin=margin) for each in (corrected(found) if metrics[1:] else found)),
        results=tuple(results),
    )


def _known(asked: Sequence[str], results: Sequence[Result]) -> list[str]:
    """Return the metrics that are asked for, each once."""
    known = sorted({name for result in results for name in result.metrics if not name.startswith("system/")})
    found: list[str] = []
    for name in asked:
        if name == EVERY_GRADER and not graders(results):
            raise RequestError("--metric graders: there is no grader by which all of them were graded; name metrics.")
        if name != EVERY_GRADER and known and name not in known:
            allowed = ", ".join([EVERY_GRADER] * bool(graders(results)) + known)
            raise RequestError(f"--metric: got {name}, which no run has; allowed: {allowed}.")
        found += graders(results) if name == EVERY_GRADER else [name]
    return list(dict.fromkeys(found))


def _difference(metric: str, one: Variant, other: Variant) -> Difference:
    """Compare two by a metric, or by their answers where no row was judged by it: a hosted job's are not."""
    found = compare(metric, one, other)
    answers = _answers([*one.runs, *other.runs])
    # A hosted job reports no losses of single rows, but its answers may be graded like anybody's.
    return found if found.rows else max((found, compare(answers, one, other)), key=lambda each: each.rows)


def _metric(results: Sequence[Result]) -> str:
    if _methods_differ(results):
        return _answers(results)
    # Runs that are under way have no say in what all are compared by.
    having = [result for result in results if result.metrics and result.status == "finished"]
    wanted = [*HEADLINES, *(graders(having) if having else ()), ANSWERS, "train/loss"]
    found = next((name for name in wanted if having and all(name in each.metrics for each in having)), None)
    # Of runs that have nothing yet: what their method will be ranked by.
    method = next((str(each.params["method"]) for each in results if "method" in each.params), None)
    return found or (f"eval/{methods.load(method).headline}" if method else HEADLINES[0])


def _answers(results: Sequence[Result]) -> str:
    """Return the first grader of answers that all have."""
    return next(iter(graders(results)), ANSWERS)


def _methods_differ(results: Sequence[Result]) -> bool:
    """Say whether methods differ: then all that compares is the answers."""
    return len({result.params.get("method") for result in results}) > 1


def figure(variant: Variant, metric: str) -> str:
    """Return a metric's mean over an variant's seeds, with its interval where there are several."""
    values = variant.values(metric)
    if not values:
        return ""
    around = spread(values)
    return f"{mean(values):.4g}" + (f" ± {around:.2g}, {len(values)} seeds" if around is not None else "")


def table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of variants: what sets them apart, and their metrics."""
    everyone = (*found.ranked, *found.unranked)
    # Each once, in this order: what was asked for, what methods show, then graders.
    shown = dict.fromkeys(
        [*found.further, *MEASURED, *(f"eval/{name}" for each in found.results for name in each.graders)]
    )
    measured = [name for name in shown if any(each.values(name) for each in everyone) and name != found.metric]
    head = [*(found.keys or ("run",)), found.metric, *measured, "runs"]
    rows = []
    for variant in everyone:
        first = variant.runs[0]
        values = [str(first.params.get(key, "")) for key in found.keys] or [variant.name]
        figures = [figure(variant, name) for name in (found.metric, *measured)]
        rows.append([*values, *figures, ", ".join(_called(run) for run in variant.runs)])
    return head, rows


def _called(run: Result) -> str:
    return run.folder.name + (f" ({run.status})" if run.status != "finished" else "")


def as_json(found: Comparison) -> ComparisonJson:
    """Return the comparison as a JSON value."""
    return {
        "metric": found.metric,
        "further": list(found.further),
        "graders": list(dict.fromkeys(name for each in found.results for name in each.graders)),
        "lower_is_better": found.kind.lower_is_better,
        "verdict": found.verdict,
        "sentences": found.sentences,
        "keys": list(found.keys),
        "variants": [
            {
                "name": each.name,
                "values": {key: each.runs[0].params.get(key) for key in found.keys},
                "metrics": _means(each),
                "runs": [{"folder": str(run.folder), "seed": run.seed, "status": run.status} for run in each.runs],
            }
            for each in (*found.ranked, *found.unranked)
        ],
        "differences": [difference_as_json(each) for each in found.differences],
    }


def difference_as_json(each: Difference) -> dict[str, object]:
    """Return a difference as a JSON value; bounds that are not known are None."""
    names = ("metric", "name", "other", "mean", "low", "high", "p", "rows", "seeds", "family", "margin", "enough")
    values = {name: getattr(each, name) for name in names}
    # JSON knows neither infinity nor nan: a bound that is not known is null.
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in values.items()
    }
    return (
        finite
        | {"better": each.better, "sentence": sentence(each)}
        | ({"no_worse": each.no_worse} if each.margin is not None else {})
    )


def _means(variant: Variant) -> dict[str, float]:
    names = sorted({name for run in variant.runs for name in run.metrics if name.startswith(("eval/", "hosted/"))})
    return {name: mean(values) for name in names if (values := variant.values(name))}


def markdown(found: Comparison) -> str:
    """Return the comparison as a page."""
    head, rows = table(found)
    lines = [f"**{found.verdict[:1].upper()}{found.verdict[1:]}.**", ""]
    lines += ["| " + " | ".join(map(_cell, row)) + " |" for row in (head, ["---"] * len(head), *rows)]
    lines += ["", *(f"- {sentence}." for sentence in found.sentences)]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    """Return what a cell of a Markdown table holds: one line, whose bars are not the table's."""
    return " ".join(text.split()).replace("|", "\\|")
