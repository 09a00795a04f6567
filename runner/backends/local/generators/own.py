"""Our own loop over the model in this process: exact, and no other weights to keep."""

from collections.abc import Sequence

from runner.backends.local import generation
from runner.backends.local.generation.sampling import Row
from runner.backends.local.generators import Forward, Generator
from runner.backends.local.training.learner import Learner
from runner.record.samples import Sampling
from runner.training.engine import OnAnswer, Sampled


class OwnGenerator(Generator):
    """The model that learns, asked where it is."""

    def __init__(self, learner: Learner) -> None:
        self._learner = learner

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer, forward: Forward
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return answers to each prompt; each rank computes all of them."""

        def finished(place: int, number: int, row: Row) -> None:
            on_answer(place, number, _sampled(row))

        with self._learner.scorer.released():
            found = generation.sample_tokens(self._learner.model, prompts, sampling, finished=finished)
        return [[_sampled(row) for row in rows] for rows in found]


def _sampled(row: Row) -> Sampled:
    return Sampled(row.ids, row.logps, row.ended)
