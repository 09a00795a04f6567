"""score_model: a judge gives the answer a number within a range.

Fields: https://platform.openai.com/docs/api-reference/graders/score-model
"""

from collections.abc import Iterable
from typing import ClassVar

from runner.graders import Grade, Judge, Subject
from runner.graders.model_grader import ChatGrader, Sampling, Verdict, answer_form, ask


class Scored(Verdict, frozen=True, kw_only=True):
    """The judge's answer."""

    result: float


class ScoreModel(ChatGrader, frozen=True, kw_only=True):
    """The judge's number, clipped to `range` as the service does, then mapped to 0..1: its lower end is 0, its upper 1.

    With the default range of 0 to 1 that is the service's own score. `pass_threshold` is in the units of `range`. An
    answer without a number is an error here; the service makes it 0.
    """

    type: ClassVar[str] = "score_model"
    hosted: ClassVar[bool] = True

    range: tuple[float, float] = (0.0, 1.0)
    sampling_params: Sampling = Sampling()

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the range and the messages."""
        yield from super().problems()
        low, high = self.range
        if not low < high:
            yield f"range: got {low:g} to {high:g}; allowed: two numbers, the lower one first."
        elif self.pass_threshold is not None and not low <= self.pass_threshold <= high:
            yield f"pass_threshold: got {self.pass_threshold:g}; allowed: {low:g} to {high:g}, the range."

    def passing_score(self) -> float | None:
        """Return `pass_threshold` mapped as the scores are."""
        return None if self.pass_threshold is None else self._mapped(self.pass_threshold)

    def judged(self, subject: Subject, judge: Judge) -> Grade:
        """Ask for the number."""
        low, high = self.range
        form = answer_form("score", {"type": "number", "description": f"the score, from {low:g} to {high:g}"})
        found = ask(judge, self.model, self.messages(subject), self.sampling_params, form, Scored)
        return Grade(self._mapped(found.result), found.reason)

    def _mapped(self, score: float) -> float:
        low, high = self.range
        # Clipped first, as the service does; the map to 0..1 is ours, so that all scores can be averaged and compared.
        return (min(max(score, low), high) - low) / (high - low)


GRADER = ScoreModel
