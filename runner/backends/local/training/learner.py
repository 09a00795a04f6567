"""The trainable model, its optimizer, and the gradient of a batch, accumulated over packs.

It knows no method and no layout by name: rows' losses come from the method, their log-probabilities from a
`Scorer`. Learning rate and random numbers follow from the number of steps done.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

import msgspec
import torch
from torch import Tensor

from runner import distributed
from runner.backends.local.machine.profile import Profile
from runner.backends.local.parallel import sharding
from runner.backends.local.parallel.schedule import Schedule
from runner.backends.local.scoring.packing import num_tokens
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training import checkpoint
from runner.backends.local.training.checkpoint import State
from runner.backends.local.training.examples import Example
from runner.backends.local.training.recipe import Recipe, rate
from runner.methods import Scores

Values = dict[str, Tensor]
Grads = Sequence[Tensor | None]


class EvaluationState(msgspec.Struct):
    """The evaluations of held-out rows so far: the lowest loss, the step it was measured after, evaluations since."""

    best_loss: float | None = None
    best_step: int = 0
    since_best: int = 0
    evaluated_step: int = -1
    untrained: bool = False
    """Whether the model has been measured as it was before training."""

    def update(self, step: int, loss: float) -> bool:
        """Take note of a loss; return whether it is the lowest so far. The untrained model (step 0) is no result."""
        self.evaluated_step = step
        # Equal is not better: of two equal ones the earlier is kept, which has trained less.
        better = step > 0 and (self.best_loss is None or loss < self.best_loss)
        if better:
            self.best_loss, self.best_step = loss, step
        self.since_best = 0 if better else self.since_best + (step > 0)
        return better


def trainable(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights that learn, by name, in the model's own order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Learner:
    """A model that learns by a recipe: the weights, their optimizer, and the loss of rows."""

    def __init__(self, scorer: Scorer, recipe: Recipe, profile: Profile | None = None) -> None:
        self.scorer, self.model, self.recipe = scorer, scorer.model, recipe
        self.lanes = scorer.lanes
        self.profile = profile or Profile()
        self.weights = trainable(self.model)
        # Weight decay pulls matrices; biases and the gains of norms are left alone, as is usual.
        matrices = [tensor for tensor in self.weights.values() if tensor.ndim > 1]
        vectors = [tensor for tensor in self.weights.values() if tensor.ndim <= 1]
        groups = [{"params": matrices, "weight_decay": recipe.weight_decay}, {"params": vectors, "weight_decay": 0.0}]
        # fused: one pass over all weights, on CPUs too since torch 2.4.
        self.adam = torch.optim.AdamW([each for each in groups if each["params"]], lr=recipe.learning_rate, fused=True)
        self.group = distributed.group()
        self.schedule = Schedule(self.group.rank, self.lanes.count, recipe.tokens_at_once)
        self.averaged = {name: tensor.detach().clone() for name, tensor in self.weights.items() if recipe.ema_decay}

    def losses(self, examples: Sequence[Example], policy: Scores | None = None) -> dict[str, Tensor]:
        """Return `loss` and the method's metrics of rows, (rows,) each; `policy`: what is known of them already."""
        policy = policy or self.scorer([example.tokens for example in examples])
        stored = [example.reference_logps for example in examples if example.reference_logps is not None]
        reference = torch.tensor(stored, device=policy.logps.device) if stored else None
        loss, metrics = self.recipe.method.loss(policy, reference, self.recipe.hyperparameters)
        return {"loss": loss, **metrics}

    def backward(self, examples: Sequence[Example], step: int = 0) -> dict[str, Tensor]:
        """Add the gradient of a batch's loss, pack by pack; return the batch's loss and metrics, all scalars.

        The batch's loss is the mean of its rows' losses weighted by the method, however the batch is cut.
        """
        weight = self.recipe.method.weight
        whole = sum(weight(example.num_learned) for example in examples)
        total: dict[str, Tensor] = {}
        lengths = [num_tokens(example.tokens) for example in examples]
        # The packs are those of the whole batch on every rank: their numbers, from which random numbers follow,
        # do not depend on who computes them.
        packs = self.schedule.batch(lengths)
        parts = [[examples[index] for index in indices] for indices in packs]
        for turns in self.schedule.rounds([sum(lengths[index] for index in indices) for indices in packs]):
            # Dropout draws the same numbers wherever a process has resumed.
            torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 1_009 + turns[0][0])
            works = []
            for number, counts in turns:
                # A pack that only fills a short deal counts 0 times: its gradient is zero, and FSDP has its call.
                factors = [counts * weight(each.num_learned) / whole for each in parts[number]]
                works.append(partial(self._backward, parts[number], factors, len(turns)))
            for values, grads in self.lanes.run(works):
                self._accumulate(grads)
                total = {name: total.get(name, 0.0) + value for name, value in values.items()}
        self._add(total)
        return total

    def _backward(self, part: Sequence[Example], factors: Sequence[float], lanes: int) -> tuple[Values, Grads]:
        """Return a pack's share of the loss and metrics; its gradients, too, where others go beside it, else added."""
        each = torch.tensor(factors, device=self.model.device)
        with self.profile.part("forward", lanes):
            found = {name: (values * each).sum() for name, values in self.losses(part).items()}
        grads: Grads = ()
        with self.profile.part("backward", lanes):
            # From several threads `backward` would add into .grad in whatever order they finish; sums of floats
            # depend on it.
            if lanes == 1:
                found["loss"].backward()
            else:
                grads = torch.autograd.grad(found["loss"], list(self.weights.values()), allow_unused=True)
        return {name: value.detach() for name, value in found.items()}, grads

    def _accumulate(self, grads: Grads) -> None:
        """Add the gradients of a pack that was computed beside others."""
        # A pack computed alone has added its own gradient and returns none.
        for weight, grad in zip(self.weights.values(), grads, strict=bool(grads)):
            if grad is not None:
                weight.grad = grad if weight.grad is None else weight.grad.add_(grad)

    def _add(self, values: dict[str, Tensor]) -> None:
        """Add up values and gradients over the processes; sharded gradients are added up in the backward pass."""
        # The batch's weights add up to 1 over all ranks, so a plain sum is the batch's gradient.
        grads = [tensor.grad for tensor in self.weights.values() if tensor.grad is not None]
        self.group.all_reduce([*values.values(), *(each for each in grads if not sharding.is_part(each))])

    def step(self, examples: Sequence[Example], step: int) -> dict[str, Tensor]:
        """Take the optimizer step that follows `step` steps; return loss, metrics and the gradient's norm, all scalars.

        Nothing is read back from the device, so that a GPU need not wait.
        """
        self.profile.step()
        values = self.backward(examples, step)
        with self.profile.part("optimizer"):
            norm: Tensor = torch.nn.utils.clip_grad_norm_(self.weights.values(), self.recipe.max_grad_norm)
            for each in self.adam.param_groups:
                # Set, not stepped: a scheduler's state would have to be in the checkpoint.
                each["lr"] = self.recipe.learning_rate * rate(step, self.recipe)
            self.adam.step()
            self.adam.zero_grad()
            if decay := self.recipe.ema_decay:
                torch._foreach_lerp_(list(self.averaged.values()), list(self.weights.values()), 1 - decay)
            values["grad_norm"] = sharding.whole(norm)  # before it was clipped
        return values

    @property
    def result(self) -> Mapping[str, Tensor]:
        """The weights that are evaluated and kept, whole: the averaged ones, where they are asked for."""
        return self._whole(self.averaged or self.weights)

    @property
    def has_reference(self) -> bool:
        """Whether the loss compares the policy with the reference."""
        return self.recipe.method.needs_reference(self.recipe.hyperparameters)

    def state(self, step: int, evaluated: EvaluationState) -> State:
        """Return all that training needs to go on after `step` steps."""
        extra = {"averaged": self._whole(self.averaged)} if self.averaged else {}
        optimizer = self._whole(checkpoint.optimizer_tensors(self.weights, self.adam))
        return State(step, self._whole(self.weights), optimizer, extra, msgspec.to_builtins(evaluated))

    def _whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return tensors as process 0 writes them: gathered, where they are shared out."""
        return sharding.gathered(tensors, self.group.rank.first)

    @torch.no_grad()
    def restore(self, state: State) -> EvaluationState:
        """Put a state into weights and optimizer; return what held-out rows had said."""
        for name, tensor in self.weights.items():
            sharding.fill(tensor, state.weights[name])
        for name, tensor in self.averaged.items():
            sharding.fill(tensor, state.extra["averaged"][name])
        checkpoint.restore_optimizer(self.weights, self.adam, sharding.optimizer_like(self.weights, state.optimizer))
        return msgspec.convert(state.progress, EvaluationState)

    @contextmanager
    def result_in_place(self) -> Iterator[None]:
        """Within the block the model computes with the weights that are evaluated and kept."""
        self._exchange()
        try:
            yield
        finally:
            self._exchange()

    @torch.no_grad()
    def _exchange(self) -> None:
        for name, averaged in self.averaged.items():
            # In place: the optimizer and FSDP hold on to these very tensors.
            held = self.weights[name].clone()
            self.weights[name].copy_(averaged)
            averaged.copy_(held)
