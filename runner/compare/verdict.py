"""A comparison as a whole, and how it is written down: what differs, who is best, how sure that is. Pure.

`Comparison` holds the numbers; `as_json`, `markdown` and `html` say them. The terminal's tables are in output.py.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from jinja2 import Environment

from runner import methods
from runner.compare.difference import Difference, compare, lower_is_better, mean, rank, spread, words
from runner.compare.results import Result, Variant, differing, variants
from runner.errors import RequestError

PREFERRED = [*(f"eval/{name}" for name in methods.headlines()), "eval/in_style", "train/loss"]
"""What runs are ranked by if nothing is said: the first that all have. Losses of different betas do not compare."""
MEASURED = [f"eval/{each.name}" for each in methods.metrics().values() if each.shown]
"""What is shown beside the metric, if it was measured."""
ANSWERS = "eval/in_style"
"""What answers to held-out prompts are judged by, wherever the model is."""
NEXT = 20
"""With so many that come next the best one is compared; what lies behind them is nobody's question."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Variants, best first, by a metric; and how the best one differs from each other one."""

    metric: str
    keys: tuple[str, ...]
    ranked: tuple[Variant, ...]
    unranked: tuple[Variant, ...]
    differences: tuple[Difference, ...]
    results: tuple[Result, ...]

    @property
    def sentences(self) -> list[str]:
        """Say what came out, and what did not."""
        told = [each.sentence for each in self.differences]
        if len(self.ranked) == 1 and len(self.ranked[0].runs) > 1:
            told.append(
                f"{len(self.ranked[0].runs)} runs of one request, which differ in their seed only: "
                "what sets them apart is chance, and none of them wins"
            )
        if self.metric == ANSWERS and not self.ranked and _unlike(self.results):
            told.append(
                "unlike methods measure unlike things, so they are compared by their answers, and none was judged: "
                "dataset.style says what a good one looks like, evaluation.samples how many are given"
            )
        return told

    @property
    def compared_all(self) -> bool:
        """Whether the best one was compared with every other."""
        return len(self.differences) == len(self.ranked) - 1

    @property
    def verdict(self) -> str:
        """Say who is best, and whether that can be trusted."""
        if not self.ranked:
            return f"nothing to rank: no run has {self.metric} yet"
        best = self.ranked[0]
        least = "least " if lower_is_better(self.metric) else ""
        told = f"best by {least}{words(self.metric)}: {best.name} ({figure(best, self.metric)})"
        unsure = [each for each in self.differences if each.metric != self.metric or not each.better]
        if not self.differences:
            return told
        if not unsure:
            return f"{told}, better than every other beyond chance" if self.compared_all else f"{told}, beyond chance"
        return f"{told}, but {len(unsure)} of {len(self.differences)} others cannot be told from it"


def make(results: Sequence[Result], metric: str | None = None) -> Comparison:
    """Compare runs by a metric; without one by the first of `PREFERRED` that every finished run has,
    unlike methods by their answers.

    Raises `RequestError` where no run has the metric, with those that there are.
    """
    taking_part = variants(results)
    known = sorted({name for result in results for name in result.metrics if not name.startswith("system/")})
    if metric is not None and known and metric not in known:
        raise RequestError(f"--metric: got {metric}, which no run has; allowed: {', '.join(known)}.")
    metric = metric or _metric(results)
    ranked = rank(metric, taking_part)
    return Comparison(
        metric=metric,
        keys=tuple(differing(results)),
        ranked=tuple(ranked),
        unranked=tuple(each for each in taking_part if each not in ranked),
        differences=tuple(_difference(metric, ranked[0], each) for each in ranked[1 : 1 + NEXT]),
        results=tuple(results),
    )


def _difference(metric: str, one: Variant, other: Variant) -> Difference:
    """Compare two by a metric, or by their answers where no row was judged by it: a hosted job's are not."""
    found = compare(metric, one, other)
    return found if found.rows else max((found, compare(ANSWERS, one, other)), key=lambda each: each.rows)


def _metric(results: Sequence[Result]) -> str:
    if _unlike(results):
        return ANSWERS
    having = [result for result in results if result.metrics and result.status == "finished"]
    return next((name for name in PREFERRED if all(name in each.metrics for each in having)), PREFERRED[0])


def _unlike(results: Sequence[Result]) -> bool:
    """Say whether methods differ: then all that compares is the answers."""
    return len({result.params.get("method") for result in results}) > 1


def figure(variant: Variant, metric: str) -> str:
    """Return a metric's mean over an variant's seeds, with its interval where there are several."""
    values = variant.values(metric)
    if not values:
        return ""
    around = spread(values)
    return f"{mean(values):.4g}" + (f" ± {around:.2g} ({len(values)} seeds)" if around is not None else "")


def table(found: Comparison) -> tuple[list[str], list[list[str]]]:
    """Return the head and the rows of the table of variants: what sets them apart, and their metrics."""
    measured = [
        name for name in MEASURED
        if any(each.values(name) for each in (*found.ranked, *found.unranked)) and name != found.metric
    ]  # fmt: skip
    head = [*(found.keys or ("run",)), found.metric, *measured, "runs"]
    rows = []
    for variant in (*found.ranked, *found.unranked):
        first = variant.runs[0]
        told = [str(first.params.get(key, "")) for key in found.keys] or [variant.name]
        figures = [figure(variant, name) for name in (found.metric, *measured)]
        rows.append([*told, *figures, ", ".join(_called(run) for run in variant.runs)])
    return head, rows


def _called(run: Result) -> str:
    return run.folder.name + (f" ({run.status})" if run.status != "finished" else "")


def as_json(found: Comparison) -> dict[str, Any]:
    """Return the comparison as a JSON value."""
    return {
        "metric": found.metric,
        "lower_is_better": lower_is_better(found.metric),
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
        "differences": [asdict(each) | {"sentence": each.sentence} for each in found.differences],
    }


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


def html(found: Comparison, drawing: str) -> str:
    """Return the comparison as a page that stands alone, with a drawing (SVG)."""
    head, rows = table(found)
    return _PAGE.render(found=found, head=head, rows=rows, drawing=drawing)


_PAGE = Environment(autoescape=True).from_string(
    """<!doctype html>
<meta charset="utf-8">
<title>{{ found.verdict }}</title>
<style>
  body { font: 15px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
  table { border-collapse: collapse; display: block; overflow-x: auto }
  th, td { text-align: left; padding: .3rem .8rem .3rem 0; border-bottom: 1px solid #ddd; white-space: nowrap }
  th { font-weight: 600; color: #666 }
  svg { max-width: 100%; height: auto }
</style>
<h1>{{ found.verdict }}</h1>
<table>
<tr>{% for name in head %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in rows %}<tr>{% for cell in row %}<td>{{ cell }}</td>{% endfor %}</tr>
{% endfor %}</table>
<ul>{% for sentence in found.sentences %}<li>{{ sentence }}.</li>{% endfor %}</ul>
{{ drawing | safe }}
"""
)
