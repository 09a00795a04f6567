"""The models of one folder, each against the first, by each grader; and folders with each other."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from runner.compare import results, verdict
from runner.compare.difference import LEAST_ROWS, Difference, compare, corrected
from runner.compare.results import Variant
from runner.compare.sentences import amount, sentence, words
from runner.compare.verdict import Comparison, difference_as_json
from runner.methods import Metric


@dataclass(frozen=True, kw_only=True)
class Models:
    """Models with the mean score of each, and how each differs from the first, corrected for being several."""

    variants: tuple[Variant, ...]
    metrics: tuple[str, ...]
    """`eval/GRADER` of each grader that graded any of them."""
    differences: tuple[Difference, ...]
    """Of each model but the first, by each metric: the model against the first."""

    @property
    def sentences(self) -> list[str]:
        """Say of each difference what came out."""
        return [sentence(each) for each in self.differences]

    @property
    def table(self) -> tuple[list[str], list[list[str]]]:
        """The head and a line for each model: mean scores, each with its difference and interval where there is one."""
        head = ["model", *(words(name, self._kind(name)) for name in self.metrics)]
        return head, [[each.name, *(self._cell(each, name) for name in self.metrics)] for each in self.variants]

    def _kind(self, metric: str) -> Metric:
        return results.kind(metric, [each.runs[0] for each in self.variants])

    def _cell(self, model: Variant, metric: str) -> str:
        mean = model.runs[0].metrics.get(metric)
        cell = "" if mean is None else f"{mean:.4g}"
        for each in self.differences:
            if (each.name, each.metric) == (model.name, metric) and each.estimate:
                kind = self._kind(metric)
                low, high = amount(kind, each.low), amount(kind, each.high)
                # Of a few rows an interval reaches beyond what a score can be, and says nothing.
                interval = f", {low} to {high}{'; beyond chance' * each.significant}" * (each.rows >= LEAST_ROWS)
                cell += f" ({amount(kind, each.mean, True)}{interval})"
        return cell


def compare_models(folder: Path, margin: float | None = None) -> Models:
    """Compare the models whose answers are graded in a folder: of an evaluation, or a run's `base` and `tuned`.

    Raises `RequestError` where nothing was graded.
    """
    # Each model by itself: models of one folder were asked the same rows, and have no seeds.
    variants = [Variant(each.model, (each,)) for each in results.read_models(folder)]
    metrics = list(dict.fromkeys(f"eval/{name}" for each in variants for name in each.runs[0].graders))
    found = [compare(name, each, variants[0]) for each in variants[1:] for name in metrics]
    return Models(
        variants=tuple(variants),
        metrics=tuple(metrics),
        differences=tuple(replace(each, margin=margin) for each in corrected(found)),
    )


def compare_folders(
    folders: Sequence[Path], metric: str | Sequence[str] | None = None, margin: float | None = None
) -> Comparison:
    """Compare the runs, and the models of evaluations, that some folders hold; raises as `verdict.make`.

    A single run whose answers were graded is compared with the model that it was made from, by each grader.
    """
    # Each once: a run that is named twice would be taken for two seeds that agree.
    once = {folder.resolve(): folder for folder in folders}
    read = [each for folder in once.values() for each in results.read_all(folder)]
    found = verdict.make(read, metric, margin)
    if len(read) != 1 or not read[0].graders:
        return found
    return replace(found, differences=compare_models(read[0].folder, margin).differences)


def as_json(found: Models) -> dict[str, object]:
    """Return the comparison as a JSON value."""
    models = [{"name": each.name, "metrics": dict(each.runs[0].metrics)} for each in found.variants]
    return {"models": models, "differences": [difference_as_json(each) for each in found.differences]}
