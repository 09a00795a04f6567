"""The training loop: batches in a seeded order, gradients summed pack by pack, one optimizer step a batch.

It knows no method and no layout by name: rows' losses come from the method, their log-probabilities from a
`Scorer`. Where training stands is the number of optimizer steps done; order, learning rate and random numbers
follow from it, so that a resumed run goes on in the same bits.
"""

import math
import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import torch
from torch import Tensor

from runner import ranks
from runner.backends.local import checkpoint, load, sharded, shares
from runner.backends.local.checkpoint import State, Writer
from runner.backends.local.layout import group, num_tokens
from runner.backends.local.logps import Scorer
from runner.backends.local.profile import Profile
from runner.errors import RunnerError, StopAsked
from runner.events import Event, Metrics, Note, Progress
from runner.methods import Method
from runner.tokens import TokenRow


@dataclass(frozen=True)
class Example:
    """A row ready to be learned from: its tokens, and the reference's log-probability of each answer."""

    tokens: TokenRow
    reference_logps: tuple[float, ...] | None

    @property
    def num_learned(self) -> tuple[int, ...]:
        """Tokens that the loss sees, an answer at a time; the first of a text has nothing to be predicted from."""
        first = 0 if self.tokens.prompt else 1
        return tuple(sum(learned[first:]) for learned in self.tokens.learned)


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What a training run does, all `auto` resolved."""

    method: Method
    hyperparameters: Any
    learning_rate: float
    schedule: str
    warmup_ratio: float
    weight_decay: float
    max_grad_norm: float
    num_steps: int
    seed: int
    evaluate_every: int
    checkpoint_every: int
    keep_best: bool
    patience: int | None = None
    ema_decay: float | None = None
    neftune_alpha: float = 0.0
    checkpoints: int = 1
    tokens_at_once: int = 1


class Standing(msgspec.Struct):
    """What held-out rows have said so far: the lowest loss, the step it was measured after, evaluations since."""

    best_loss: float | None = None
    best_at: int = 0
    since_best: int = 0
    judged_at: int = -1

    def judge(self, at: int, loss: float) -> bool:
        """Take note of a loss; return whether it is the lowest so far. The untrained model (at = 0) is no result."""
        self.judged_at = at
        better = at > 0 and (self.best_loss is None or loss < self.best_loss)
        if better:
            self.best_loss, self.best_at = loss, at
        self.since_best = 0 if better else self.since_best + (at > 0)
        return better


def batch(num_rows: int, batch_size: int, seed: int, at: int) -> list[int]:
    """Return the row numbers of the batch after `at` optimizer steps; each epoch has an order of its own."""
    epoch, position = divmod(at, math.ceil(num_rows / batch_size))
    order = torch.randperm(num_rows, generator=torch.Generator().manual_seed(seed + epoch)).tolist()
    return order[position * batch_size : (position + 1) * batch_size]


def rate(at: int, recipe: Recipe) -> float:
    """Return the factor on the learning rate for the step after `at` steps: a linear climb, then the schedule."""
    warmup = math.ceil(recipe.num_steps * recipe.warmup_ratio)
    if at < warmup:
        return (at + 1) / warmup
    done = (at - warmup) / max(1, recipe.num_steps - warmup)
    return {"cosine": (1 + math.cos(math.pi * done)) / 2, "linear": 1 - done, "constant": 1.0}[recipe.schedule]


def mean(rows: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the weighted mean of rows' values, by their `eval/` names."""
    total = sum(row["weight"] for row in rows)
    names = [name for name in rows[0] if name != "weight"]
    return {f"eval/{name}": sum(row[name] * row["weight"] for row in rows) / total for name in names}


def trainable(model: Any) -> dict[str, Tensor]:
    """Return the weights that learn, by name, in the model's own order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def packs(examples: Sequence[Example], room: int) -> list[list[Example]]:
    """Cut a batch into packs of at most `room` tokens, short rows first, so that each forward call has enough to do."""
    by_length = sorted(examples, key=lambda example: num_tokens(example.tokens))
    lengths = [num_tokens(example.tokens) for example in by_length]
    even = math.ceil(sum(lengths) / math.ceil(sum(lengths) / room))  # no small pack is left over
    return [[by_length[index] for index in indices] for indices in group(lengths, even)]


class Learner:
    """A model that learns by a recipe: the weights, their optimizer, and the loss of rows."""

    def __init__(self, scorer: Scorer, recipe: Recipe, profile: Profile | None = None) -> None:
        self.scorer, self.model, self.recipe = scorer, scorer.model, recipe
        self.profile = profile or Profile()
        self.weights = trainable(self.model)
        matrices = [tensor for tensor in self.weights.values() if tensor.ndim > 1]
        vectors = [tensor for tensor in self.weights.values() if tensor.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        self.adam = torch.optim.AdamW([each for each in groups if each["params"]], lr=recipe.learning_rate, fused=True)
        self.world = ranks.world()
        self.averaged = {name: tensor.detach().clone() for name, tensor in self.weights.items() if recipe.ema_decay}

    def losses(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        """Return `loss` and the method's metrics of rows scored in one forward call, each of shape (rows,)."""
        policy = self.scorer([example.tokens for example in examples])
        stored = [example.reference_logps for example in examples if example.reference_logps is not None]
        reference = torch.tensor(stored, device=policy.logps.device) if stored else None
        loss, metrics = self.recipe.method.loss(policy, reference, self.recipe.hyperparameters)
        return {"loss": loss, **metrics}

    def backward(self, examples: Sequence[Example], at: int = 0) -> dict[str, Tensor]:
        """Add the gradient of a batch's loss, pack by pack; return the batch's loss and metrics, all scalars.

        The batch's loss is the mean of its rows' losses weighted by the method, however the batch is cut.
        """
        weight = self.recipe.method.weight
        whole = sum(weight(example.num_learned) for example in examples)
        total: dict[str, Tensor] = {}
        lengths = [num_tokens(example.tokens) for example in examples]
        parts = packs(examples, shares.room(sum(lengths), self.recipe.tokens_at_once, self.world.place.count))
        for number, counts in self._turns(parts):
            # Dropout draws the same numbers wherever a process has resumed.
            torch.manual_seed((self.recipe.seed * 1_000_003 + at) * 1_009 + number)
            part = parts[number]
            share = [counts * weight(each.num_learned) / whole for each in part]
            factors = torch.tensor(share, device=self.model.device)
            with self.profile.part("forward"):
                found = {name: (values * factors).sum() for name, values in self.losses(part).items()}
            with self.profile.part("backward"):
                found["loss"].backward()
            total = {name: total.get(name, 0.0) + value.detach() for name, value in found.items()}
        self._add(total)
        return total

    def _turns(self, parts: Sequence[Sequence[Example]]) -> list[tuple[int, bool]]:
        """Return the numbers of the packs that this process computes, each with whether it counts."""
        sizes = [sum(num_tokens(example.tokens) for example in part) for part in parts]
        return shares.turns(sizes, self.world.place)

    def _add(self, values: dict[str, Tensor]) -> None:
        """Add up values and gradients over the processes; sharded gradients are added up in the backward pass."""
        grads = [tensor.grad for tensor in self.weights.values() if tensor.grad is not None]
        self.world.add([*values.values(), *(each for each in grads if not sharded.is_part(each))])

    def step(self, examples: Sequence[Example], at: int) -> dict[str, Tensor]:
        """Take the optimizer step that follows `at` steps; return loss, metrics and the gradient's norm, all scalars.

        Nothing is read back from the device, so that a GPU need not wait.
        """
        self.profile.step()
        values = self.backward(examples, at)
        with self.profile.part("optimizer"):
            values["grad_norm"] = self._descend(at)
        return values

    def _descend(self, at: int) -> Tensor:
        """Follow the gradient that was added up; return its norm before it was clipped."""
        norm: Tensor = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.max_grad_norm)
        for each in self.adam.param_groups:
            each["lr"] = self.recipe.learning_rate * rate(at, self.recipe)
        self.adam.step()
        self.adam.zero_grad()
        if self.recipe.ema_decay:
            torch._foreach_lerp_(list(self.averaged.values()), list(self.weights.values()), 1 - self.recipe.ema_decay)
        return sharded.whole(norm)

    @property
    def result(self) -> Mapping[str, Tensor]:
        """The weights that are judged and kept, whole: the averaged ones, where they are asked for."""
        return self._whole(self.averaged or self.weights)

    @torch.no_grad()
    def evaluate(self, examples: Sequence[Example]) -> Generator[Event, None, list[dict[str, float]]]:
        """Return each row's loss, metrics and weight; dropout is off meanwhile."""
        self.model.eval()
        lengths = [num_tokens(example.tokens) for example in examples]
        parts = [[examples[index] for index in indices] for indices in group(lengths, self.recipe.tokens_at_once)]
        found: dict[int, list[dict[str, float]]] = {}
        for turn, (number, _) in enumerate(self._turns(parts), 1):
            found[number] = self._values(parts[number])
            done = sum(map(len, parts[: turn * self.world.place.count]))
            yield Progress("evaluate", done, len(examples))
        self.model.train()
        found = {number: rows for each in self.world.collect(found) for number, rows in each.items()}
        return [row for number in range(len(parts)) for row in found[number]]

    def _values(self, part: Sequence[Example]) -> list[dict[str, float]]:
        """Return loss, metrics and weight of each row of a pack."""
        values = {name: each.tolist() for name, each in self.losses(part).items()}
        weights = [self.recipe.method.weight(example.num_learned) for example in part]
        return [
            {name: each[number] for name, each in values.items()} | {"weight": weight}
            for number, weight in enumerate(weights)
        ]

    def state(self, at: int, standing: Standing) -> State:
        """Return all that training needs to go on after `at` steps."""
        extra = {"averaged": self._whole(self.averaged)} if self.averaged else {}
        optimizer = self._whole(checkpoint.optimizer_tensors(self.weights, self.adam))
        return State(at, self._whole(self.weights), optimizer, extra, msgspec.to_builtins(standing))

    def _whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return tensors as process 0 writes them: gathered, where they are shared out."""
        return sharded.gathered(tensors, self.world.place.first)

    @torch.no_grad()
    def restore(self, state: State) -> Standing:
        """Put a state into weights and optimizer; return what held-out rows had said."""
        for name, tensor in self.weights.items():
            sharded.fill(tensor, state.weights[name])
        for name, tensor in self.averaged.items():
            sharded.fill(tensor, state.extra["averaged"][name])
        checkpoint.restore_optimizer(self.weights, self.adam, sharded.optimizer_like(self.weights, state.optimizer))
        return msgspec.convert(state.progress, Standing)

    @contextmanager
    def result_in_place(self) -> Iterator[None]:
        """Within the block the model computes with the weights that are judged and kept."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, averaged in self.averaged.items():
            held = self.weights[name].clone()
            self.weights[name].copy_(averaged)
            averaged.copy_(held)


class Meter:
    """Reads a step's values back when the next one is under way, and says how fast the tokens went."""

    def __init__(self, learner: Learner) -> None:
        self.learner = learner
        self._waiting: tuple[int, dict[str, Tensor], int] | None = None
        self.restart()

    def restart(self) -> None:
        """Begin to count time anew, after something that was no step."""
        self._since = time.perf_counter()

    def add(self, at: int, values: dict[str, Tensor], num_tokens: int) -> Generator[Event, None, None]:
        """Take the values of the step that led to `at`, not yet read; yield those of the step before."""
        before, self._waiting = self._waiting, (at, values, num_tokens)
        yield from self._read(before)

    def flush(self) -> Generator[Event, None, None]:
        """Yield what is waiting. Raises `RunnerError` where the loss is no longer a number."""
        waiting, self._waiting = self._waiting, None
        yield from self._read(waiting)

    def _read(self, waiting: tuple[int, dict[str, Tensor], int] | None) -> Generator[Event, None, None]:
        if waiting is None:
            return
        at, tensors, num_tokens = waiting
        values = dict(zip(tensors, torch.stack(list(tensors.values())).tolist(), strict=True))
        if not math.isfinite(values["loss"]):
            raise RunnerError(
                f"train: the loss is {values['loss']} after {at - 1} steps; the last checkpoint stands; "
                "try again with a lower learning rate."
            )
        now = time.perf_counter()
        recipe = self.learner.recipe
        shown = {f"train/{name}": value for name, value in values.items()}
        shown["train/learning_rate"] = recipe.learning_rate * rate(at - 1, recipe)
        shown |= load.figures(self.learner.model, num_tokens, now - self._since)
        self._since = now
        yield Metrics(at, shown)
        yield Progress("train", at, recipe.num_steps, shown)


def train(
    learner: Learner, rows: Sequence[Example], held_out: Sequence[Example], folder: Path
) -> Generator[Event, None, int]:
    """Train from the latest checkpoint in `folder`, or the start, to the end; yield metrics as they come.

    Returns the step whose weights are the result (`result_weights` says where they are). Asked to stop, it
    writes a checkpoint first.
    """
    recipe, meter = learner.recipe, Meter(learner)
    state = _latest(learner, folder)
    standing = learner.restore(state) if state else Standing()
    at = state.at if state else 0
    learner.model.train()
    with Writer(folder, recipe.checkpoints) if learner.world.place.first else shares.NoWriter() as writer:
        try:
            while at < recipe.num_steps:
                if held_out and at % recipe.evaluate_every == 0 and standing.judged_at != at:
                    yield from meter.flush()
                    with learner.profile.part("evaluation"):
                        yield from _judge(learner, held_out, writer, at, standing)
                    meter.restart()
                if recipe.patience is not None and standing.since_best >= recipe.patience:
                    yield Note(f"stopped after {at} steps: eval/loss has not fallen in {recipe.patience} evaluations")
                    break
                with learner.profile.part("data"):
                    indices = batch(len(rows), recipe.hyperparameters.batch_size, recipe.seed, at)
                    chosen = [rows[index] for index in indices]
                values = learner.step(chosen, at)
                at += 1
                with learner.profile.part("logging"):
                    yield from meter.add(at, values, sum(num_tokens(example.tokens) for example in chosen))
                if at % recipe.checkpoint_every == 0 and at < recipe.num_steps:
                    yield from meter.flush()  # what lies before a checkpoint is never measured again
                    writer.save(learner.state(at, standing))
            yield from meter.flush()
            if held_out and recipe.keep_best and standing.judged_at != at:
                yield from _judge(learner, held_out, writer, at, standing)
        except StopAsked:
            writer.save(learner.state(at, standing))
            writer.flush()
            yield from meter.flush()  # the last step lies before the checkpoint, too
            raise
        writer.save(learner.state(at, standing))
    return standing.best_at if recipe.keep_best and standing.best_loss is not None else at


def _latest(learner: Learner, folder: Path) -> State | None:
    """Return the latest checkpoint's state. Raises `RunnerError` where processes do not find the same one."""
    state = checkpoint.load(folder)
    found = learner.world.collect(state.at if state else 0)
    if len(set(found)) > 1:
        raise RunnerError(
            f"{folder}: the processes find different checkpoints, after {found} steps; "
            "let all machines see the same runs_folder."
        )
    return state


def result_weights(folder: Path, keep_best: bool) -> Path:
    """Return the file with the weights that training ended in."""
    last = checkpoint.steps(folder)[-1]
    there = [last / "averaged.safetensors", last / "weights.safetensors"]
    if keep_best:
        there.insert(0, folder / "best.safetensors")
    return next(path for path in there if path.exists())


def _judge(
    learner: Learner, held_out: Sequence[Example], writer: Writer | shares.NoWriter, at: int, standing: Standing
) -> Generator[Event, None, None]:
    """Evaluate after `at` steps and keep the weights if they are the best so far and best is asked for."""
    with learner.result_in_place():
        values = mean((yield from learner.evaluate(held_out)))
    yield Metrics(at, values)
    if standing.judge(at, values["eval/loss"]) and learner.recipe.keep_best:
        writer.best(learner.result)
