"""reward_model: a reward model that is loaded here scores the answer, as one that `method=reward` has trained.

Any model works that `AutoModelForSequenceClassification` loads with one output, and that has a chat template.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import ClassVar, Literal

import msgspec

from runner import models
from runner.data.rows import Message
from runner.errors import DataError
from runner.graders import Grade, Grader, Grading, Judge, Subject

Rewards = Callable[[Sequence[Message]], float]
"""The reward of a conversation that ends with the answer."""


class RewardModel(Grader, frozen=True, kw_only=True):
    """The reward of prompt and answer by a model, as a score from 0 to 1: sigmoid((reward - shift) / scale).

    With the default values it is the probability that Bradley and Terry's model gives to the answer being preferred to
    one whose reward is 0. `mapping=none` keeps the reward as it is.
    """

    type: ClassVar[str] = "reward_model"

    model: str
    mapping: Literal["sigmoid", "none"] = "sigmoid"
    shift: float = 0.0
    scale: float = 1.0

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the model's name and the mapping."""
        scheme, colon, rest = self.model.partition(":")
        if not colon or not rest or scheme not in models.schemes():
            meant = models.suggest(self.model)
            allowed = ", ".join(f"{name}:…" for name in sorted(models.schemes()))
            yield f"model: got {self.model!r}; {f'did you mean {meant}? ' if meant else ''}allowed: one of {allowed}."
        if not self.scale > 0:
            yield f"scale: got {self.scale:g}; allowed: more than 0."

    def loads(self) -> bool:
        """Return true."""
        return True

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        """Lend the model. Raises `ModelError` where it cannot be loaded, or is no reward model."""
        # Not before: a plan imports no torch.
        from runner.graders.reward_model.rewards import loaded

        reward = loaded(self.model)
        # Not concurrent: one answer fills the machine.
        yield lambda subject: self._graded(reward, subject)

    def _graded(self, reward: Rewards, subject: Subject) -> Grade:
        # The answer as the model saw answers in training: the assistant's turn after the prompt.
        try:
            turns = msgspec.convert(subject.item.get("messages"), list[Message])
            found = reward([*turns, Message("assistant", subject.sample.text)])
        except (msgspec.ValidationError, DataError) as error:
            return Grade(None, error=f"the prompt cannot be read: {error}")
        if not math.isfinite(found):
            return Grade(None, error=f"the reward is {found}")
        score = _sigmoid((found - self.shift) / self.scale) if self.mapping == "sigmoid" else found
        return Grade(score, f"reward {found:.3f}")


def _sigmoid(value: float) -> float:
    # Of either sign without an overflow.
    return 1 / (1 + math.exp(-value)) if value >= 0 else math.exp(value) / (1 + math.exp(value))


GRADER = RewardModel
