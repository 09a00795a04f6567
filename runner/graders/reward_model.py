"""reward_model: a reward model that is loaded here scores the answer, as one that `method=reward` has trained.

Any model works that `AutoModelForSequenceClassification` loads with one output, and that has a chat template.
"""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import ClassVar, Literal

import msgspec

from runner import models
from runner.data.rows import Message
from runner.errors import DataError, ModelError
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
        reward = _loaded(self.model)
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


@lru_cache(1)  # each batch of sampled answers is graded by itself, and the model is loaded once
def _loaded(source: str) -> Rewards:
    import torch

    from runner.backends.local.reward_model import head
    from runner.models.chat_tokenizer import ChatTokenizer

    folder = models.fetch(source)
    model = head.load(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    if model.config.num_labels != 1:
        raise ModelError(f"{source}: its head has {model.config.num_labels} outputs; a reward model has one.")
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder))

    @torch.inference_mode()
    def reward(messages: Sequence[Message]) -> float:
        ids = torch.tensor([tokenizer.encode(tokenizer.render(messages))], device=model.device)
        return float(model(input_ids=ids, use_cache=False).logits[0, 0])

    return reward


GRADER = RewardModel
