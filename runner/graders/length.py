"""Is an answer as long as asked for? With partial credit for one that is nearly so."""

import re
from collections.abc import Iterable
from typing import ClassVar, Literal

from runner.graders import Grade, Grader, Subject

# A mark within a number or a name (3.14, example.org) has no white space behind it, and ends nothing.
_SENTENCE_ENDS = re.compile(r"(?<=[.!?…])[\"'”’)\]]*\s+|(?<=[。！？])")


class Length(Grader, frozen=True, kw_only=True):
    """1 from `min` to `max`, both included; beyond, 1 − distance/`tolerance`, never below 0.

    With a tolerance of 8 words, one that is 2 words too long scores 0.75, 8 words or more 0; without tolerance there is
    no partial credit. Words are what white space parts; characters are those without the space around the answer; a
    sentence ends at . ! ? … before white space, or at 。！？, so an abbreviation such as "e.g. this" counts as an end.
    """

    type: ClassVar[str] = "length"

    unit: Literal["words", "characters", "sentences"] = "words"
    min: int = 0
    max: int | None = None
    tolerance: int = 0

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the bounds."""
        if self.min < 0 or self.tolerance < 0:
            yield f"min, tolerance: got {self.min} and {self.tolerance}; allowed: 0 or more."
        if self.max is None and self.min <= 0:
            yield "min, max: neither is given, so every answer would score 1; fix: give one."
        elif self.max is not None and self.max < self.min:
            yield f"max: got {self.max}; allowed: at least min, {self.min}."

    def grade(self, subject: Subject) -> Grade:
        """Return the score, with the length as the reason."""
        count = _count(subject.sample.text, self.unit)
        distance = max(self.min - count, count - self.max if self.max is not None else 0, 0)
        score = 1.0 if distance == 0 else max(0.0, 1 - distance / self.tolerance) if self.tolerance else 0.0
        return Grade(score, f"{count} {self.unit}")


def _count(text: str, unit: str) -> int:
    if unit == "words":
        # By white space: of languages without spaces `characters` is the unit to use.
        return len(text.split())
    text = text.strip()
    return len(text) if unit == "characters" else sum(1 for each in _SENTENCE_ENDS.split(text) if each)


GRADER = Length
