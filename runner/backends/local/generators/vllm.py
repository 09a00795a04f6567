"""vLLM in a process of its own, which may be of another environment, as vLLM pins its own torch (vllm_server.py).

Its answers are learned from by our own log-probabilities of them, so that the first update starts from a ratio of 1;
how far its own are from these says whether it has the weights that learn.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from peft import PeftModel

from runner import distributed
from runner.backends.local.generators import Forward, Generator
from runner.backends.local.generators.vllm_server import AdapterServer
from runner.backends.local.keys import Local
from runner.errors import ServiceError
from runner.models.chat.tokenizer import TokenRow
from runner.record.samples import Sampling
from runner.training.engine import OnAnswer, Sampled

SAME_NATS = 0.05
"""How far vLLM's distribution may be from ours, as the mean difference of log-probabilities of what it has drawn (an
estimate of the divergence). In bfloat16 those of single tokens differ by 0.07 either way by rounding alone."""


class VllmGenerator(Generator):
    """A server with the adapter that learns; of several ranks the first one asks it."""

    def __init__(self, model: PeftModel, folder: Path, settings: Local, seed: int) -> None:
        self._server, self._group = AdapterServer(model, folder, settings, seed), distributed.group()

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer, forward: Forward
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return vLLM's answers with the log-probabilities of the weights that learn."""
        found: list[list[Sampled]] = []
        if self._group.rank.first:
            found = self._server.answers(prompts, sampling, on_answer)
        found = self._group.broadcast(found)
        if not sampling.temperature:  # greedy answers are judged, not learned from
            return found
        pairs = zip(prompts, found, strict=True)
        logps = forward([TokenRow.answered(prompt, [each.ids for each in answers]) for prompt, answers in pairs]).logps
        theirs = np.array([logp for answers in found for each in answers for logp in each.logps])
        # Those of a nucleus add up to 1 within it, and are others.
        if sampling.top_p == 1:
            _demand_same(float((theirs - logps).mean()), len(theirs))
        ours = iter(logps.tolist())
        return [
            [Sampled(each.ids, [next(ours) for _ in each.ids], each.ended) for each in answers] for answers in found
        ]


def _demand_same(apart: float, num_tokens: int) -> None:
    if not abs(apart) <= SAME_NATS:
        raise ServiceError(
            f"vLLM answers by other weights than those that learn: the log-probabilities of {num_tokens} tokens differ "
            f"by {apart:.3f} nats in the mean, and up to {SAME_NATS} is rounding; use backend.generator=own, or "
            "another version of vLLM."
        )
