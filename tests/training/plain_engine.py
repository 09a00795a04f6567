"""A second engine: transformers' own model behind the primitives and nothing else, as a service would have them.

One sequence an answer, nothing packed or shared; states are kept under their names in a dictionary that outlives the
engine, as those of a service do.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.models.chat.tokenizer import TokenRow
from runner.record.samples import Sampling
from runner.training.by_primitives import ByPrimitives
from runner.training.engine import Abilities, Adam, OnAnswer, Pending, Sampled, TokenLogps, ignore_answer
from runner.training.evaluated import Saved
from tests.backends.local import plain


@dataclass
class Store:
    """What a service keeps of a session: states by their name, and the best weights."""

    states: dict[str, tuple[Saved, Any, Any]] = field(default_factory=dict)
    best: Any = None


class PlainEngine(ByPrimitives):
    """A model that knows the log-probabilities of tokens, their weighted sum's gradient, and AdamW."""

    abilities = Abilities(
        lost_answer="unknown", exact_resume=False, clips=True, likeliest=False,
        lacks={"lora.dropout": "the service has no dropout"},
    )  # fmt: skip

    def __init__(self, model: Any, store: Store) -> None:
        self.model, self.store = model.eval(), store
        self.learning = [weight for weight in model.parameters() if weight.requires_grad]
        self.adam = torch.optim.AdamW(self.learning)
        self.calls: list[str] = []

    def _logps(self, row: TokenRow, answer: int) -> Tensor:
        """Return the log-probability of each learned token of an answer, by a sequence of its own."""
        ids = torch.tensor(row.prompt + row.answers[answer])
        learned = torch.tensor([False] * len(row.prompt) + row.learned[answer])
        with plain.untouched():
            said = self.model(input_ids=ids[None], use_cache=False).logits[0].log_softmax(-1)
        return said[:-1].gather(1, ids[1:, None])[:, 0][learned[1:]]

    def forward(self, rows: Sequence[TokenRow]) -> TokenLogps:
        self.calls.append("forward")
        with torch.no_grad():
            found = [self._logps(row, answer) for row in rows for answer in range(len(row.answers))]
        return TokenLogps(torch.cat(found).numpy())

    def forward_backward(self, rows: Sequence[TokenRow], weights: NDArray[np.floating]) -> TokenLogps:
        self.calls.append("forward_backward")
        logps = torch.cat([self._logps(row, answer) for row in rows for answer in range(len(row.answers))])
        (-(torch.from_numpy(weights) * logps).sum()).backward()
        return TokenLogps(logps.detach().numpy())

    def optim_step(self, adam: Adam) -> Pending:
        self.calls.append("optim_step")
        assert adam.max_grad_norm is not None
        norm = torch.nn.utils.clip_grad_norm_(self.learning, adam.max_grad_norm).item()
        (group,) = self.adam.param_groups
        group |= {"lr": adam.learning_rate, "betas": (adam.beta1, adam.beta2), "eps": adam.eps}
        group["weight_decay"] = adam.weight_decay
        self.adam.step()
        self.adam.zero_grad()
        return lambda: {"grad_norm": norm}

    def save_state(self, saved: Saved) -> None:
        states = deepcopy((saved, [weight.detach() for weight in self.learning], self.adam.state_dict()))
        self.store.states[f"step-{saved.step:08d}"] = states

    def load_state(self) -> Saved | None:
        if not self.store.states:
            return None
        saved, weights, adam = deepcopy(self.store.states[max(self.store.states)])
        self._put(weights)
        self.adam.load_state_dict(adam)
        return saved

    def save_best(self) -> None:
        self.store.best = deepcopy([weight.detach() for weight in self.learning])

    @torch.no_grad()
    def _put(self, weights: Sequence[Tensor]) -> None:
        for weight, stored in zip(self.learning, weights, strict=True):
            weight.copy_(stored)

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer = ignore_answer
    ) -> list[list[Sampled]]:  # fmt: skip
        assert sampling.temperature == 0
        return [[self._greedy(prompt, sampling.max_new_tokens)] * sampling.per_prompt for prompt in prompts]

    @torch.no_grad()
    def _greedy(self, prompt: Sequence[int], at_most: int) -> Sampled:
        ids, logps = list(prompt), list[float]()
        while len(logps) < at_most and (not logps or ids[-1] != self.model.generation_config.eos_token_id):
            with plain.untouched():
                said = self.model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].log_softmax(-1)
            ids.append(int(said.argmax()))
            logps.append(said.max().item())
        return Sampled(ids[len(prompt) :], logps, ids[-1] == self.model.generation_config.eos_token_id)
