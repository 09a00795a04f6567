"""Is an export the run's model? What both said to the same questions, compared; pure."""

from collections.abc import Iterator, Sequence

import msgspec

from runner.exporting.evidence import Evidence, Ids, Questions, flat
from runner.exporting.exporter import Bound

UNCHANGED = 1e-6
"""Two models whose log-probabilities differ by less on average are the same one: 32-bit rounding."""


class Check(msgspec.Struct, frozen=True):
    """One thing that was compared, in words: what was found, and what is allowed."""

    name: str
    passed: bool
    found: str
    allowed: str


class Proof(msgspec.Struct, frozen=True):
    """All that was compared, with the numbers."""

    checks: list[Check]
    rows: int
    tokens: int
    mean: float
    """The mean distance of a token's log-probability, in nats."""
    largest: float
    same_replies: int

    @property
    def holds(self) -> bool:
        """Whether the export is the run's model."""
        return all(each.passed for each in self.checks)

    @property
    def refusal(self) -> str:
        """What is wrong, in a sentence's middle."""
        return "; ".join(
            f"{each.name}: {each.found} (allowed: {each.allowed})" for each in self.checks if not each.passed
        )


def prove(asked: Questions, run: Evidence, base: Sequence[Sequence[float]], export: Evidence, bound: Bound) -> Proof:
    """Compare an export with the run's model, given the base model's log-probabilities of the same answers."""
    apart = [abs(one - other) for one, other in zip(flat(run.logps), flat(export.logps), strict=True)]
    same = sum(one == other for one, other in zip(run.replies, export.replies, strict=True))
    mean = sum(apart) / len(apart)
    enough = least(len(run.replies), bound.replies)
    return Proof(
        [
            _same_ids("chat template of the prompts", run.prompts, export.prompts),
            _same_ids("chat template of the answers", run.conversations, export.conversations),
            _ends(asked, export),
            # Written so that a NaN fails.
            Check("log-probabilities", mean <= bound.logps, f"{mean:.2g} nats a token apart", f"{bound.logps:g}"),
            *_is_tuned(run, base, export, mean),
            Check("greedy answers", same >= enough, f"{same} of {len(run.replies)} are the same", f"{enough} or more"),
        ],
        len(run.logps), len(apart), mean, max(apart), same,
    )  # fmt: skip


def least(count: int, share: float) -> int:
    """Return how many of some answers have to be the same; of few answers one may differ where any may."""
    return count - max(int(count * (1 - share) + 1e-9), int(share < 1))


def _same_ids(name: str, ours: Sequence[Ids], theirs: Sequence[Ids]) -> Check:
    for number, (one, other) in enumerate(zip(ours, theirs, strict=True), 1):
        if one != other:
            at = next(
                (n for n, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
            )
            seen = f"row {number} differs from token {at + 1} on, {_near(other, at)} in place of {_near(one, at)}"
            return Check(name, False, seen, "the same tokens")
    return Check(name, True, f"{len(ours)} rows, {sum(map(len, ours)):,} tokens, all the same", "the same tokens")


def _near(ids: Ids, at: int) -> str:
    return f"ids {ids[at : at + 4]}" if at < len(ids) else "the end"


def _ends(asked: Questions, export: Evidence) -> Check:
    # What it does counts, and what it names: llama.cpp also stops at ids whose text is known to end answers.
    wrong = [end for end, stops in zip(asked.ends, export.stops, strict=True) if not stops]
    strange = [end for end in export.ends if end not in asked.ends]
    if wrong:
        return Check("end of an answer", False, f"it does not stop at id {wrong[0]}", "it stops at each")
    if strange:
        return Check("end of an answer", False, f"it also stops at id {strange[0]}", f"ids {asked.ends} alone")
    return Check("end of an answer", True, f"it stops at ids {asked.ends}", "it stops at each")


def _is_tuned(run: Evidence, base: Sequence[Sequence[float]], export: Evidence, mean: float) -> Iterator[Check]:
    """Yield the check that it is the tuned model and not the base model, where tuning has changed anything."""
    before = flat(base)
    learned = _mean_distance(flat(run.logps), before)
    if learned > UNCHANGED:
        # A wide bound, of four bits say, may have room for the base model as well.
        to_base = _mean_distance(flat(export.logps), before)
        seen = f"{mean:.2g} nats from the tuned model, {to_base:.2g} from the base model"
        yield Check("what was learned", mean < to_base, seen, "nearer to the tuned model")


def _mean_distance(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return sum(abs(one - other) for one, other in zip(ours, theirs, strict=True)) / len(ours)
