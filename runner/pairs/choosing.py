"""Of each prompt's graded answers the best against the worst, and the best alone. Pure."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.quality.checks import has_text
from runner.data.quality.near_duplicates import similarity
from runner.data.rows import Message, Turns
from runner.record.graded import Answer, AnswerGrade, Asked

ROUNDING = 1e-9
"""Scores are sums of decimal fractions: 0.9 - 0.6 is a margin of 0.3."""


@dataclass(frozen=True)
class Scored:
    """An answer with its score."""

    answer: Answer
    score: float


@dataclass(frozen=True)
class Pick:
    """A prompt with the best of its answers, and the worst where that is worse by the margin."""

    row: Asked
    best: Scored
    worst: Scored | None

    @property
    def pair(self) -> Pair:
        """The best answer against the worst."""
        assert self.worst is not None
        return Pair(self.row.prompt, _turn(self.best), _turn(self.worst), self.row.tools)

    @property
    def conversation(self) -> Conversation:
        """The best answer, to be imitated; what the assistant has said before it is not learned."""
        before = tuple(msgspec.structs.replace(turn, weight=_weight(turn)) for turn in self.row.prompt)
        return Conversation(before + _turn(self.best), self.row.tools)


@dataclass(frozen=True)
class Choice:
    """What became of the prompts: `pairs`, the `best` answers to imitate, and why others are in neither, counted."""

    pairs: Sequence[Pick]
    best: Sequence[Pick]
    no_pair: Mapping[str, int]
    no_best: Mapping[str, int]


def scored(answers: Sequence[Answer], grades: Sequence[AnswerGrade]) -> dict[str, list[Scored]]:
    """Return by row the answers of one model that have a score by one grader, in the order they were drawn in."""
    scores = {(each.row, each.sample): each.score for each in grades}
    found: dict[str, list[Scored]] = {}
    for answer in answers:
        score = scores.get((answer.row, answer.sample))
        # An error of the grader's is no score of 0: such an answer is neither good nor bad.
        if score is not None:
            found.setdefault(answer.row, []).append(Scored(answer, score))
    return found


def choose(
    rows: Sequence[Asked], found: Mapping[str, Sequence[Scored]], *, margin: float, at_least: float | None,
    similar: float,
) -> Choice:  # fmt: skip
    """Choose among the scored answers of each row; of equal scores the answer that was drawn first is taken."""
    pairs, best = list[Pick](), list[Pick]()
    no_pair, no_best = Counter[str](), Counter[str]()
    for row in rows:
        pick, reason = _picked(row, found.get(row.row, ()), margin, similar)
        if pick is None or pick.worst is None:
            no_pair[reason] += 1
        else:
            pairs.append(pick)
        # A prompt whose answers are all good is no pair, and its best answer can be imitated all the same.
        if pick is None:
            no_best[reason] += 1
        elif at_least is not None and pick.best.score < at_least - ROUNDING:
            no_best["its best answer is not good enough (at_least)"] += 1
        else:
            best.append(pick)
    return Choice(pairs, best, dict(no_pair), dict(no_best))


def _picked(row: Asked, every: Sequence[Scored], margin: float, similar: float) -> tuple[Pick | None, str]:
    """Return the best and the worst answer of a row, and the reason where there is none."""
    if not every:
        return None, "no answer has a grade"
    said = [each for each in every if has_text(each.answer.text) or each.answer.tool_calls]
    # An answer that the limit has cut off has no end: whoever imitates it learns never to stop. It may be the worst.
    whole = [each for each in said if each.answer.ended]
    if not whole:
        return None, "every answer is empty or cut off"
    # max and min take the first of equals, so that the choice is the same each time.
    best = max(whole, key=lambda each: each.score)
    others = [each for each in said if not _alike(each.answer, best.answer, similar)]
    if not others:
        return Pick(row, best, None), "its answers are nearly the same"
    worst = min(others, key=lambda each: each.score)
    if best.score - worst.score < margin - ROUNDING:
        return Pick(row, best, None), "its scores differ by less than the margin"
    return Pick(row, best, worst), ""


def _alike(one: Answer, other: Answer, similar: float) -> bool:
    # The same words with another call are another answer.
    same_calls = one.tool_calls == other.tool_calls
    return same_calls and (one.text == other.text or similarity(one.text, other.text) >= similar)


def _turn(scored: Scored) -> Turns:
    # A service's calls may have keys of its own; they are kept as the answer has them.
    calls = [each for each in scored.answer.tool_calls or () if isinstance(each, dict)]
    return (Message("assistant", scored.answer.text or None, tool_calls=calls or None),)


def _weight(turn: Message) -> Literal[0, 1] | None:
    return 0 if turn.role == "assistant" else turn.weight
