"""The in-process engine: the primitives of training by torch on this machine, and any of our losses in one pass.

Behind the contract are packs, lanes, ranks and shards (learner.py), checkpoints on disk (checkpoint.py) and an average
of the weights, where one is asked for.
"""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from itertools import accumulate
from pathlib import Path
from typing import TypeVar

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from runner.backends.local.generators import Generator as AnswerGenerator
from runner.backends.local.generators.own import OwnGenerator
from runner.backends.local.machine import throughput
from runner.backends.local.scoring.scorer import wide
from runner.backends.local.training import checkpoint
from runner.backends.local.training.checkpoint import Writer
from runner.backends.local.training.learner import Learner, Values
from runner.backends.local.training.null_writer import NullWriter
from runner.errors import RunnerError
from runner.methods import Scores
from runner.models.chat.tokenizer import TokenRow
from runner.record.samples import Sampling
from runner.training.engine import Abilities, Adam, Engine, OnAnswer, Pending, Sampled, TokenLogps, ignore_answer
from runner.training.evaluated import EvaluationState, Saved
from runner.training.examples import Example, Examples, num_learned, num_tokens
from runner.training.loss import Loss, Rows

T = TypeVar("T")


class InProcessEngine(Engine):
    """A learner with its checkpoints in a folder, and what samples answers by its weights."""

    abilities = Abilities(lost_answer="impossible", exact_resume=True, clips=True, likeliest=True, lacks={})

    def __init__(self, learner: Learner, folder: Path, generator: AnswerGenerator | None = None) -> None:
        self.learner, self.folder = learner, folder
        self._generator = generator or OwnGenerator(learner)
        self._flops = throughput.flops_per_token(learner.model)
        self._writer: Writer | NullWriter = NullWriter()
        self._step = 0

    def forward(self, rows: Sequence[TokenRow]) -> TokenLogps:
        """Return the scores of rows' learned tokens, computed in packs of neighbours."""
        self.learner.model.eval()

        def compute(numbers: Sequence[int]) -> tuple[NDArray[np.floating], NDArray[np.bool_]]:
            tokens = self.learner.scorer([rows[number] for number in numbers], by_token=True).tokens
            assert tokens is not None
            return tokens.logps.cpu().numpy(), tokens.correct.bool().cpu().numpy()

        found = _drained(self._in_packs([num_tokens(row) for row in rows], compute))
        logps, likeliest = (np.concatenate(each) for each in zip(*found, strict=True))
        return TokenLogps(logps, likeliest)

    def forward_backward(self, rows: Sequence[TokenRow], weights: NDArray[np.floating]) -> TokenLogps:
        """Add the gradient of -Σ weights · logps; return the scores."""
        ends = list(accumulate((sum(num_learned(row)) for row in rows), initial=0))
        given = torch.from_numpy(weights).to(self.learner.model.device, wide(self.learner.model.dtype))
        found = given.new_zeros(2, ends[-1])

        def share(numbers: Sequence[int], counts: bool, policy: Scores) -> Values:
            assert policy.tokens is not None
            places = torch.cat([torch.arange(ends[number], ends[number + 1]) for number in numbers]).to(given.device)
            if counts:
                found[:, places] = torch.stack([policy.tokens.logps.detach(), policy.tokens.correct])
            return {"loss": -(given[places] * policy.tokens.logps).sum() * counts}

        self.learner.backward(rows, share, self._step, by_token=True)
        # Each rank has the tokens of its own packs, and zeros for the others'.
        self.learner.group.all_reduce([found])
        return TokenLogps(found[0].cpu().numpy(), found[1].bool().cpu().numpy())

    def forward_backward_custom(self, examples: Sequence[Example], loss: Loss) -> Pending:
        """Add the gradient of the mean of rows' losses, weighted by the method, however the batch is cut."""
        self.learner.profile.step()
        whole = loss.total(examples)

        def share(numbers: Sequence[int], counts: bool, policy: Scores) -> Values:
            part = [examples[number] for number in numbers]
            each = policy.logps.new_tensor([counts * loss.weight(example) / whole for example in part])
            return {name: (values * each).sum() for name, values in loss(part, policy).items()}

        rows = [example.tokens for example in examples]
        return _pending(self.learner.backward(rows, share, self._step, loss.by_token))

    def optim_step(self, adam: Adam) -> Pending:
        """Take an optimizer step; return the gradient's norm before it was clipped."""
        with self.learner.profile.part("optimizer"):
            norm = self.learner.descend(adam)
        self._step += 1
        return _pending({"grad_norm": norm})

    def evaluate(self, examples: Examples, loss: Loss) -> Generator[int, None, Rows]:
        """Return each row's loss, metrics and weight; dropout is off. Yield how many rows are done on all ranks."""
        self.learner.model.eval()

        def compute(numbers: Sequence[int]) -> Rows:
            part = [examples[number] for number in numbers]
            return loss.rows(part, self.learner.scorer([example.tokens for example in part], loss.by_token))

        lengths = [num_tokens(examples[number].tokens) for number in range(len(examples))]
        with self.learner.result_in_place():
            found = yield from self._in_packs(lengths, compute)
        return [row for rows in found for row in rows]

    def _in_packs(self, lengths: Sequence[int], compute: Callable[[Sequence[int]], T]) -> Generator[int, None, list[T]]:
        """Return what `compute` makes of the packs of rows in their order, without gradients; yield the rows done."""
        learner, found = self.learner, dict[int, T]()
        # In their order, not balanced: the packs are the same however many ranks there are, and so is each row's
        # last bit.
        packs = learner.schedule.neighbours(lengths)
        for turns in learner.schedule.rounds([sum(lengths[index] for index in pack) for pack in packs]):
            numbers = [number for number, _ in turns]
            works = [partial(torch.no_grad()(compute), packs[number]) for number in numbers]
            found |= zip(numbers, learner.lanes.run(works), strict=True)
            # As if the others were as far: they go round by round together.
            yield learner.group.rank.world_size * sum(len(packs[number]) for number in found)
        # A pack that two ranks have computed has the same values twice.
        found = {number: made for each in learner.group.all_gather(found) for number, made in each.items()}
        return [found[number] for number in range(len(packs))]

    @contextmanager
    def training(self) -> Iterator[None]:
        """Within the block a thread of rank 0 writes checkpoints."""
        keep = self.learner.recipe.checkpoints
        with Writer(self.folder, keep) if self.learner.group.rank.first else NullWriter() as self._writer:
            yield

    def save_state(self, saved: Saved) -> None:
        """Copy all that training needs to resume with the same bits, and hand it to the thread that writes."""
        self._writer.save(self.learner.state(saved.step, msgspec.to_builtins(saved.evaluated)))

    def load_state(self) -> Saved | None:
        """Put the latest checkpoint in place. Raises `RunnerError` where processes do not find the same one."""
        state = checkpoint.load(self.folder)
        found = self.learner.group.all_gather(state.step if state else 0)
        # Each machine has looked into its own folder of runs.
        if len(set(found)) > 1:
            raise RunnerError(
                f"{self.folder}: the processes find different checkpoints, after {found} steps; "
                "let all machines see the same runs_folder."
            )
        if state is None:
            return None
        self.learner.restore(state)
        self._step = state.step
        return Saved(state.step, msgspec.convert(state.progress, EvaluationState))

    def save_best(self) -> None:
        """Copy the weights that were evaluated and hand them to the thread that writes."""
        self._writer.best(self.learner.result)

    def wait_saved(self) -> None:
        """Return when all is on disk."""
        self._writer.flush()

    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer = ignore_answer
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return answers to each prompt by the weights that would be kept, on each rank the same."""
        with self.learner.result_in_place():
            return self._generator.sample(prompts, sampling, on_answer, self.forward)

    def figures(self, num_tokens: int, seconds: float) -> dict[str, float]:
        """Return tokens/s, GFLOP/s, and the peak of memory in GiB."""
        return throughput.figures(self.learner.model, self._flops, num_tokens, seconds)

    def timed(self, part: str) -> AbstractContextManager[None]:
        """Return the profile's part of that name."""
        return self.learner.profile.part(part)


def result_weights(folder: Path, keep_best: bool) -> Path:
    """Return the file with the weights that training ended in."""
    last = checkpoint.steps(folder)[-1]
    # In the order of preference: the best so far, the average, the weights themselves.
    there = [last / "averaged.safetensors", last / "weights.safetensors"]
    if keep_best:
        there.insert(0, folder / "best.safetensors")
    return next(path for path in there if path.exists())


def _pending(values: Mapping[str, Tensor]) -> Pending:
    # One transfer for all values: each waits for the device.
    return lambda: dict(zip(values, torch.stack(list(values.values())).tolist(), strict=True))


def _drained(work: Generator[int, None, T]) -> T:
    """Return what a generator returns."""
    while True:
        try:
            next(work)
        except StopIteration as finished:
            value: T = finished.value
            return value
