"""The rows of a run whose answers are the model's own: prompts, tokenised when they are asked."""

from collections.abc import Mapping

from runner.backends import Events
from runner.backends.local.training.training_data import TrainingData
from runner.errors import DataError
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Progress
from runner.rollouts.sampled import problem_of

TRIED_ANSWERS = (7, 4)
"""Tokens of the made-up answers with which packing is tried."""


class PromptData(TrainingData):
    """The rows of a run whose answers are sampled: prompts alone, tokenised when they are asked."""

    room = 0
    """Tokens that an answer takes, which have to fit behind each prompt."""

    def check_long_rows(self) -> Events:
        """Raise `DataError` for a prompt that leaves no room for an answer, so that none stops the run later."""
        for split, rows in self.rows.items():
            yield Progress("prepare", 0, 0, what="tokenising")
            for number, row in enumerate(rows, 1):
                count = len(self._tokenizer.encode_prompt(problem_of(row).given))
                if count + self.room > self._max_length:
                    raise DataError(
                        f"dataset.{split}, row {number}: the prompt has {count:,} tokens, and rft.max_new_tokens="
                        f"{self.room:,} more are over backend.max_length={self._max_length:,}; shorten it, or "
                        "raise the limit."
                    )
        return {}

    def telling_rows(self, config: Mapping[str, object]) -> list[TokenRow]:
        """Return the first prompts with made-up answers, with which packing is tried."""
        found = []
        for number in range(min(2, len(self.rows["train"]))):
            prompt = self._tokenizer.encode_prompt(problem_of(self.rows["train"][number]).given)
            # Any tokens do: whether a layout is exact does not depend on what they say.
            answers = tuple((prompt * len(TRIED_ANSWERS))[-size:] for size in TRIED_ANSWERS)
            found.append(TokenRow.answered(prompt, answers))
        return found
