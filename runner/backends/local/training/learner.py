"""The trainable model, its optimizer, and the gradient of rows, accumulated over packs.

It knows no method and no loss: what a pack adds to the loss is given to it as a function of the pack's scores. Random
numbers follow from the number of steps done.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from runner import distributed
from runner.backends.local.machine.profile import Profile
from runner.backends.local.parallel import sharding
from runner.backends.local.parallel.schedule import Schedule
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training import checkpoint
from runner.backends.local.training.checkpoint import State
from runner.backends.local.training.recipe import LocalRecipe
from runner.methods import Scores
from runner.models.chat.tokenizer import TokenRow
from runner.training.engine import Adam
from runner.training.examples import num_tokens

Values = dict[str, Tensor]
Grads = Sequence[Tensor | None]
Share = Callable[[Sequence[int], bool, Scores], Values]
"""What a pack adds to the loss and the metrics, scalars: by its rows' numbers, whether it counts, and its scores."""


def trainable(model: torch.nn.Module) -> dict[str, Tensor]:
    """Return the weights that learn, by name, in the model's own order."""
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


class Learner:
    """A model that learns: its weights, their gradient over packs, lanes and ranks, and their optimizer."""

    def __init__(self, scorer: Scorer, recipe: LocalRecipe, profile: Profile | None = None) -> None:
        self.scorer, self.model, self.recipe = scorer, scorer.model, recipe
        self.lanes = scorer.lanes
        self.profile = profile or Profile()
        self.weights = trainable(self.model)
        # Weight decay pulls matrices; biases and the gains of norms are left alone, as is usual.
        matrices = [tensor for tensor in self.weights.values() if tensor.ndim > 1]
        vectors = [tensor for tensor in self.weights.values() if tensor.ndim <= 1]
        groups = [{"params": matrices, "decays": True}, {"params": vectors, "decays": False}]
        # fused: one pass over all weights, on CPUs too since torch 2.4.
        self.adam = torch.optim.AdamW([each for each in groups if each["params"]], lr=recipe.learning_rate, fused=True)
        self.group = distributed.group()
        self.schedule = Schedule(self.group.rank, self.lanes.count, recipe.tokens_at_once)
        self.averaged = {name: tensor.detach().clone() for name, tensor in self.weights.items() if recipe.ema_decay}

    def backward(self, rows: Sequence[TokenRow], share: Share, step: int, by_token: bool = False) -> Values:
        """Add the gradient of the sum of all packs' `share`s; return these sums over packs and ranks, all scalars."""
        if not self.model.training:
            self.model.train()
        total: Values = {}
        lengths = [num_tokens(row) for row in rows]
        # The packs are those of the whole batch on every rank: their numbers, from which random numbers follow,
        # do not depend on who computes them.
        packs = self.schedule.batch(lengths)
        for turns in self.schedule.rounds([sum(lengths[index] for index in indices) for indices in packs]):
            # Dropout draws the same numbers wherever a process has resumed.
            torch.manual_seed((self.recipe.seed * 1_000_003 + step) * 1_009 + turns[0][0])
            works = []
            for number, counts in turns:
                part = [rows[index] for index in packs[number]]
                # A pack that only fills a short deal does not count: its gradient is zero, and FSDP has its call.
                pack_share = partial(share, packs[number], counts)
                works.append(partial(self._backward, part, pack_share, by_token, len(turns)))
            for values, grads in self.lanes.run(works):
                self._accumulate(grads)
                total = {name: total.get(name, 0.0) + value for name, value in values.items()}
        self._add(total)
        return total

    def _backward(
        self, part: Sequence[TokenRow], share: Callable[[Scores], Values], by_token: bool, lanes: int
    ) -> tuple[Values, Grads]:
        """Return a pack's share of the loss and metrics; its gradients if others run at the same time, else added."""
        with self.profile.part("forward", lanes):
            found = share(self.scorer(part, by_token))
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
        """Add the gradients of a pack that was computed at the same time as others."""
        # A pack computed alone has added its own gradient and returns none.
        for weight, grad in zip(self.weights.values(), grads, strict=bool(grads)):
            if grad is not None:
                weight.grad = grad if weight.grad is None else weight.grad.add_(grad)

    def _add(self, values: Values) -> None:
        """Add up values and gradients over the processes; sharded gradients are added up in the backward pass."""
        # The batch's weights add up to 1 over all ranks, so a plain sum is the batch's gradient.
        grads = [tensor.grad for tensor in self.weights.values() if tensor.grad is not None]
        self.group.all_reduce([*values.values(), *(each for each in grads if not sharding.is_part(each))])

    def descend(self, adam: Adam) -> Tensor:
        """Take an optimizer step; return the gradient's norm before it was clipped.

        Nothing is read back from the device, so that a GPU need not wait.
        """
        longest = float("inf") if adam.max_grad_norm is None else adam.max_grad_norm
        norm: Tensor = torch.nn.utils.clip_grad_norm_(self.weights.values(), longest)
        for each in self.adam.param_groups:
            # Set, not stepped: a scheduler's state would have to be in the checkpoint.
            each["lr"], each["betas"], each["eps"] = adam.learning_rate, (adam.beta1, adam.beta2), adam.eps
            each["weight_decay"] = adam.weight_decay if each["decays"] else 0.0
        self.adam.step()
        self.adam.zero_grad()
        if decay := self.recipe.ema_decay:
            torch._foreach_lerp_(list(self.averaged.values()), list(self.weights.values()), 1 - decay)
        return sharding.whole(norm)

    @property
    def result(self) -> Mapping[str, Tensor]:
        """The weights that are evaluated and kept, whole: the averaged ones, where they are asked for."""
        return self._whole(self.averaged or self.weights)

    def state(self, step: int, progress: Mapping[str, object]) -> State:
        """Return all that training needs to continue after `step` steps."""
        extra = {"averaged": self._whole(self.averaged)} if self.averaged else {}
        optimizer = self._whole(checkpoint.optimizer_tensors(self.weights, self.adam))
        return State(step, self._whole(self.weights), optimizer, extra, progress)

    def _whole(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """Return tensors as process 0 writes them: gathered, where they are shared out."""
        return sharding.gathered(tensors, self.group.rank.first)

    @torch.no_grad()
    def restore(self, state: State) -> None:
        """Put a state into weights and optimizer."""
        for name, tensor in self.weights.items():
            sharding.fill(tensor, state.weights[name])
        for name, tensor in self.averaged.items():
            sharding.fill(tensor, state.extra["averaged"][name])
        checkpoint.restore_optimizer(self.weights, self.adam, sharding.optimizer_like(self.weights, state.optimizer))

    def load_result(self, path: Path) -> None:
        """Put stored weights in the place of those that learn, and of their average."""
        for weights in (self.weights, self.averaged):
            checkpoint.load_weights(path, weights)

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
