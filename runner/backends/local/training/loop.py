"""The training loop: batches in a seeded order, one optimizer step a batch, checkpoints and evaluations on the way.

The state of training is the number of optimizer steps done; the order of rows follows from it, and all that the
`Learner` (learner.py) draws and sets, so that a resumed run ends in the same bits.
"""

import math
import time
from collections.abc import Generator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from runner.backends.local.machine import throughput
from runner.backends.local.scoring.packing import num_tokens
from runner.backends.local.training import checkpoint
from runner.backends.local.training.checkpoint import State, Writer
from runner.backends.local.training.evaluation import evaluate, evaluate_reference
from runner.backends.local.training.examples import Example, Examples
from runner.backends.local.training.learner import EvaluationState, Learner
from runner.backends.local.training.null_writer import NullWriter
from runner.backends.local.training.recipe import rate
from runner.errors import RunnerError, StopAsked
from runner.record.events import Event, Metrics, Note, Progress


def batch(num_rows: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Return the row numbers of the batch after `step` optimizer steps; each epoch has an order of its own."""
    epoch, position = divmod(step, math.ceil(num_rows / batch_size))
    # From the step alone: nothing about the order has to be in a checkpoint.
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed + epoch))
    return order[position * batch_size : (position + 1) * batch_size].tolist()


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the weighted mean of rows' values, by their `eval/` names."""
    total = sum(row["weight"] for row in rows)
    names = [name for name in rows[0] if name != "weight"]
    return {f"eval/{name}": sum(row[name] * row["weight"] for row in rows) / total for name in names}


class Meter:
    """Reads a step's values back when the next one is under way, and says how fast the tokens went."""

    def __init__(self, learner: Learner) -> None:
        self.learner, self._flops = learner, throughput.flops_per_token(learner.model)
        self._waiting: tuple[int, dict[str, Tensor], int] | None = None
        self.restart()

    def restart(self) -> None:
        """Restart the clock, after something that was no step."""
        self._since = time.perf_counter()

    def pause(self, seconds: float) -> None:
        """Leave out time that was spent on something else."""
        self._since += seconds

    def add(self, step: int, values: dict[str, Tensor], num_tokens: int) -> Generator[Event, None, None]:
        """Take the values of the step that led to `step`, not yet read; yield those of the step before."""
        before, self._waiting = self._waiting, (step, values, num_tokens)
        yield from self._read(before)

    def flush(self) -> Generator[Event, None, None]:
        """Yield what is waiting. Raises `RunnerError` where the loss is no longer a number."""
        waiting, self._waiting = self._waiting, None
        yield from self._read(waiting)

    def _read(self, waiting: tuple[int, dict[str, Tensor], int] | None) -> Generator[Event, None, None]:
        if waiting is None:
            return
        step, tensors, num_tokens = waiting
        # One transfer for all values: each waits for the device.
        values = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise RunnerError(
                f"train: the loss is {values['loss']} after {step - 1} steps; the last checkpoint stands; "
                "try again with a lower learning rate."
            )
        now = time.perf_counter()
        recipe = self.learner.recipe
        shown = {f"train/{name}": value for name, value in values.items()}
        shown["train/learning_rate"] = recipe.learning_rate * rate(step - 1, recipe)
        shown |= throughput.figures(self.learner.model, self._flops, num_tokens, now - self._since)
        # So a step's time includes reading its values, which is when the device has done it.
        self._since = now
        yield Metrics(step, shown)
        yield Progress("train", step, recipe.num_steps, shown)


def train(learner: Learner, rows: Examples, held_out: Examples, folder: Path) -> Generator[Event, None, int]:
    """Train from the latest checkpoint in `folder`, or the start, to the end; yield metrics as they come.

    Returns the step whose weights are the result (`result_weights` says where they are). Asked to stop, it
    writes a checkpoint first.

    Held-out rows are evaluated before the first step, if that needs the model. A loss with a reference needs the
    reference's log-probabilities only, which are the same at any time: computing them waits until rows are to be
    evaluated after some training, so that the first step need not wait for them.
    """
    recipe, meter = learner.recipe, Meter(learner)
    state = _latest(learner, folder)
    evaluated = learner.restore(state) if state else EvaluationState()
    step = state.step if state else 0
    learner.model.train()
    with Writer(folder, recipe.checkpoints) if learner.group.rank.first else NullWriter() as writer:
        try:
            while step < recipe.num_steps:
                # A run that resumes at this step has the evaluation in its journal already.
                due = len(held_out) and step % recipe.evaluate_every == 0 and evaluated.evaluated_step != step
                # A loss with a reference has the untrained model's values without the model (`_evaluate_untrained`).
                if due and (step or not learner.has_reference):
                    yield from meter.flush()
                    with learner.profile.part("evaluation"):
                        yield from _evaluate(learner, held_out, writer, step, evaluated)
                    meter.restart()
                if recipe.patience is not None and evaluated.since_best >= recipe.patience:
                    yield Note(f"stopped after {step} steps: eval/loss has not fallen in {recipe.patience} evaluations")
                    break
                chosen = yield from _batch(learner, rows, step, meter)
                values = learner.step(chosen, step)
                step += 1
                with learner.profile.part("logging"):
                    yield from meter.add(step, values, sum(num_tokens(example.tokens) for example in chosen))
                # The last step has its checkpoint after the loop.
                if step % recipe.checkpoint_every == 0 and step < recipe.num_steps:
                    yield from meter.flush()  # what lies before a checkpoint is never measured again
                    writer.save(learner.state(step, evaluated))
            yield from meter.flush()
            if len(held_out) and recipe.keep_best and evaluated.evaluated_step != step:
                yield from _evaluate(learner, held_out, writer, step, evaluated)
            # Not evaluated at the end, so the untrained values are all that is missing, if anything.
            elif len(held_out) and learner.has_reference:
                yield from _evaluate_untrained(learner, held_out, evaluated)
        except StopAsked:
            writer.save(learner.state(step, evaluated))
            writer.flush()
            yield from meter.flush()  # the last step lies before the checkpoint, too
            raise
        writer.save(learner.state(step, evaluated))
    # Without a measured loss there is no best: nothing was held out, or nothing was evaluated.
    return evaluated.best_step if recipe.keep_best and evaluated.best_loss is not None else step


def _batch(learner: Learner, rows: Examples, step: int, meter: Meter) -> Generator[Event, None, list[Example]]:
    """Return the rows of the batch after `step` steps; preparing them is not counted as time of the step."""
    recipe, began = learner.recipe, time.perf_counter()
    indices = batch(len(rows), recipe.hyperparameters.batch_size, recipe.seed, step)
    yield from rows.ready(indices, "train")
    meter.pause(time.perf_counter() - began)
    with learner.profile.part("data"):
        return [rows[index] for index in indices]


def _latest(learner: Learner, folder: Path) -> State | None:
    """Return the latest checkpoint's state. Raises `RunnerError` where processes do not find the same one."""
    state = checkpoint.load(folder)
    found = learner.group.all_gather(state.step if state else 0)
    # Each machine has looked into its own folder of runs.
    if len(set(found)) > 1:
        raise RunnerError(
            f"{folder}: the processes find different checkpoints, after {found} steps; "
            "let all machines see the same runs_folder."
        )
    return state


def result_weights(folder: Path, keep_best: bool) -> Path:
    """Return the file with the weights that training ended in."""
    last = checkpoint.steps(folder)[-1]
    # In the order of preference: the best so far, the average, the weights themselves.
    there = [last / "averaged.safetensors", last / "weights.safetensors"]
    if keep_best:
        there.insert(0, folder / "best.safetensors")
    return next(path for path in there if path.exists())


def _evaluate(
    learner: Learner, held_out: Examples, writer: Writer | NullWriter, step: int, evaluated: EvaluationState
) -> Generator[Event, None, None]:
    """Evaluate after `step` steps and keep the weights if they are the best so far and best is asked for."""
    if learner.has_reference:
        yield from _evaluate_untrained(learner, held_out, evaluated)
    with learner.result_in_place():
        values = mean((yield from evaluate(learner, held_out, "train")))
    yield Metrics(step, values)
    # The method's own loss decides, as it is what training lowers; other metrics are reported beside it.
    if evaluated.update(step, values["eval/loss"]) and learner.recipe.keep_best:
        writer.best(learner.result)


def _evaluate_untrained(
    learner: Learner, held_out: Examples, evaluated: EvaluationState
) -> Generator[Event, None, None]:
    """Evaluate the model as it was before the first step, once, by the reference's log-probabilities."""
    if not evaluated.untrained:
        yield Metrics(0, mean((yield from evaluate_reference(learner, held_out, "train"))))
        evaluated.untrained = True
