"""Rewards of answers under a model with a head: packed as log-probabilities are, read at each answer's last token."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from runner.backends.local.scoring.packing import pack
from runner.backends.local.scoring.scorer import Scorer
from runner.methods import Scores
from runner.models.chat.tokenizer import TokenRow

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class RewardScorer(Scorer):
    """A model with a head that scores rows; `Scores.rewards` are its numbers, and there are no log-probabilities."""

    model: "PreTrainedModel"

    def _score(self, rows: Sequence[TokenRow], by_token: bool) -> Scores:
        laid = pack(rows).to(self.model.device)
        asked: dict[str, object] = {"input_ids": laid.ids, "position_ids": laid.positions, "use_cache": False}
        if self.packed:
            asked["segments"] = laid.segments
        with self._noise_on(laid.row_lengths):
            hidden: Tensor = self.model.base_model(**asked).last_hidden_state[0]
        head: nn.Module = self.model.score
        places = list(ends(rows, self.model.config.pad_token_id))
        rewards: Tensor = head(hidden[places].float()).view(laid.shape)
        nothing = torch.full_like(rewards, torch.nan).detach()
        return Scores(nothing, nothing, nothing, rewards=rewards)


def ends(rows: Sequence[TokenRow], padding: int) -> Iterator[int]:
    """Yield where in a pack of rows each prompt + answer ends, as transformers finds it: the last token but padding.

    Where a template ends an answer with the padding token, that is one before it.
    """
    start = 0
    for row in rows:
        after_prompt = start + len(row.prompt)
        end = after_prompt
        for answer in row.answers:
            # The prompt lies once, in front of all answers, so that a place in it is reached over the others.
            last = next((place for place in reversed(range(len(answer))) if answer[place] != padding), None)
            before = next((place for place in reversed(range(len(row.prompt))) if row.prompt[place] != padding), 0)
            yield start + before if last is None else end + last
            end += len(answer)
        start = end
