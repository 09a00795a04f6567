"""What an answer costs: its length times the size of the model that writes it, row by row on the same rows.

An answer's price is that of its tokens, and a token's that of the weights it passes through, so a model with half the
weights, or one that says the same in half the words, costs half. Characters stand for tokens, which two models count
differently.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from runner import models
from runner.compare.difference import LEAST_ROWS, compare
from runner.compare.results import Rows, Variant
from runner.models.source import ModelIdentity
from runner.promotion.contenders import Contender
from runner.record import graded
from runner.record.graded import Answer

METRIC = "cost"


@dataclass(frozen=True)
class Cheaper:
    """Whether one model is cheaper than another, for sure, and the sentence that says so."""

    yes: bool
    sentence: str


def cheaper(one: Contender, other: Contender) -> Cheaper:
    """Say whether an answer of one costs less than one of the other, by the interval over the same rows."""
    sizes = _sizes(one.base, other.base)
    if sizes is None:
        unknown = f"whether it is cheaper is not known: the sizes of {one.base.source} and {other.base.source} are not"
        return Cheaper(False, f"{unknown} on this machine")
    # The same rows on both sides: what makes an answer long is the question.
    ours, theirs = _characters(one), _characters(other)
    common = sorted(ours.keys() & theirs.keys())
    mean = sum(theirs[row] for row in common) * sizes[1] / max(1, len(common))
    if len(common) < LEAST_ROWS or not mean:
        return Cheaper(False, f"whether it is cheaper is not known: {len(common)} prompts were answered by both")
    # In parts of what the other one costs, so that the difference is a share.
    costs = [
        {row: {METRIC: text[row] * size / mean} for row in common}
        for text, size in zip((ours, theirs), sizes, strict=True)
    ]
    found = compare(METRIC, _with(one, costs[0]), _with(other, costs[1]))
    low, high = 100 * found.low, 100 * found.high
    says = f"an answer's cost changes by {100 * found.mean:+.0f} %, 95% interval {low:+.0f} to {high:+.0f} %"
    if found.high < 0:
        return Cheaper(True, says)
    return Cheaper(False, f"it is not cheaper for sure: {says}, {found.rows} prompts")


def _with(contender: Contender, costs: Rows) -> Variant:
    return Variant(contender.called, (replace(contender.result, rows=costs, graders=()),))


def _characters(contender: Contender) -> Mapping[str, float]:
    """Return the mean length of a model's answers to each row."""
    lengths: dict[str, list[int]] = {}
    for each in graded.read(contender.folder / graded.ANSWERS, Answer):
        if each.model == contender.model:
            lengths.setdefault(each.row, []).append(len(each.text))
    return {row: sum(each) / len(each) for row, each in lengths.items()}


def _sizes(one: ModelIdentity, other: ModelIdentity) -> tuple[float, float] | None:
    """Return the parameters of two models; of one and the same, whatever it is, the unit. None if not known."""
    if (one.digest or one.source) == (other.digest or other.source):
        return 1.0, 1.0
    # Never fetched for this: a base model may be gigabytes.
    folders = [models.cached(each.source) for each in (one, other)]
    if None in folders:
        return None
    sizes = [_parameters(folder) for folder in folders if folder]
    return (sizes[0], sizes[1]) if all(sizes) else None


def _parameters(folder: Path) -> float:
    from safetensors import safe_open

    count = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, "numpy") as file:
            # Shapes alone: the weights stay on the disk.
            for name in file.keys():  # noqa: SIM118 (it is no mapping)
                size = 1
                for length in file.get_slice(name).get_shape():
                    size *= length
                count += size
    return float(count)
