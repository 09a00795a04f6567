"""The losses that `rft.loss_type` chooses from: one function per loss, and the keys that only our own loop takes.

A loss is a function of the learned tokens of sampled answers (`Tokens`) and returns a value for each, shape (tokens,):

    ratio(token) = policy(token) / old policy(token)      the old policy is the one that the answer was sampled from

How these are put together is said where a loss is registered: `mean`. Its keyword arguments are the keys it knows; it
is refused together with others that are set.

A new loss is a function under `@loss_type(…)` in any file of this folder; its name is what `rft.loss_type` takes.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from runner.methods.rft.advantages import Baseline
from runner.request.types import Auto, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor

Mean = Literal["answer", "token", "limit"]
"""How tokens' losses are put together: an answer's mean, then the mean of all answers; the mean of all tokens of the
batch; the sum over answers × `rft.max_new_tokens`.
"""
Ratio = Literal["token", "answer", "answer_mean"]
"""What the old policy is compared by: each token; a whole answer; its geometric mean over the answer's tokens."""
Choices = dict[str, tuple[object, str]]
"""What `auto` means, and why, by key."""


@dataclass(frozen=True)
class Tokens:
    """The learned tokens of sampled answers, each tensor of shape (tokens,).

    `logps` in nats; `ratios` to the old policy, as the loss asked for them; `advantages` of the answers they belong to.
    """

    logps: "Tensor"
    ratios: "Tensor"
    advantages: "Tensor"


Loss = Callable[..., "Tensor"]
"""`(tokens, *, epsilon, …) -> losses`, shape (tokens,)."""


@dataclass(frozen=True)
class LossType:
    """A loss, and what the runner has to know of it before torch is there.

    `kl_in_reward`: the distance to the reference is taken off the reward, and not added to the loss. `choices`: what
    `auto` means where it is not what it means elsewhere.
    """

    function: Loss
    mean: Mean
    ratio: Ratio
    baseline: Baseline
    kl_in_reward: bool
    choices: Choices

    @property
    def keys(self) -> frozenset[str]:
        """Names of the keys that only some losses know and this one does."""
        parameters = signature(self.function).parameters.values()
        return frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)


LOSSES: dict[str, LossType] = {}
"""Every loss by its name."""


def loss_type(
    *, mean: Mean, ratio: Ratio = "token", baseline: Baseline = "scaled", kl_in_reward: bool = False,
    **choices: tuple[object, str],
) -> Callable[[Loss], Loss]:  # fmt: skip
    """Return a decorator that puts a function among the losses, under its own name."""

    def register(function: Loss) -> Loss:
        LOSSES[function.__name__] = LossType(function, mean, ratio, baseline, kl_in_reward, choices)
        return function

    return register


# Imported for its decorators, which put the losses into `LOSSES`.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

CLIPPING = ("epsilon", "epsilon_high")
"""The keys that not every loss knows."""

# The type of the key is made of the names that were registered, so that a wrong one is refused with all of them.
if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(LOSSES)]


@dataclass(frozen=True, kw_only=True)
class LoopKeys:
    """Keys under `rft` that only our own loop takes; a hosted job goes by the service's own values."""

    loss_type: LossName = "dapo"
    """Which loss turns advantages into a gradient: GRPO and what followed it, or RLOO."""
    group_size: Annotated[int, Meta(ge=2)] | Auto = "auto"
    """Answers sampled to each prompt, which are compared with each other; auto: 8 × compute_multiplier."""
    temperature: PositiveFloat | Auto = "auto"
    """Of sampled answers; also divides the logits in the loss."""
    max_new_tokens: PositiveInt | Auto = "auto"
    """Tokens an answer may take while training."""
    epsilon: PositiveFloat | Auto = "auto"
    """How far below 1 the ratio to the policy that sampled counts; farther away a token is not pushed on."""
    epsilon_high: PositiveFloat | Auto = "auto"
    """How far above 1 the ratio counts; for `cispo` the largest ratio itself."""
    beta: NonNegativeFloat | Auto = "auto"
    """Weight of the KL divergence from the base model; 0 needs no reference."""
    updates_per_rollout: PositiveInt | Auto = "auto"
    """Optimizer steps on each batch of sampled answers; with more than 1 the ratios leave 1."""
    extra_rounds: NonNegativeInt = 0
    """Times that other prompts are answered in place of groups without spread, until a batch has none (DAPO's way)."""
    mask_truncated: bool = False
    """Learn nothing from answers that the limit cut off; else they are learned from as they were graded."""


def problems(keys: LoopKeys) -> Iterator[str]:
    """Yield a sentence for each key that the chosen loss does not know."""
    loss = LOSSES[keys.loss_type]
    # Refused and not ignored: a bound that does nothing would be tuned in vain.
    for key in CLIPPING:
        value = getattr(keys, key)
        if value != "auto" and key not in loss.keys:
            knowing = ", ".join(name for name, each in LOSSES.items() if key in each.keys)
            yield (
                f"rft.{key}: got {value}, but rft.loss_type={keys.loss_type} does not use it; leave it out, or take a "
                f"loss that has it: {knowing}."
            )


def unused(keys: LoopKeys) -> list[str]:
    """Return the keys that the chosen loss does not know."""
    return [key for key in CLIPPING if key not in LOSSES[keys.loss_type].keys]


def choices(keys: LoopKeys) -> Choices:
    """Return what `auto` means for the chosen loss, with the reason, by key."""
    # A loss's own choices come last, so that clipping suits its ratio.
    usual: Mapping[str, tuple[object, str]] = {
        "epsilon": (0.2, "the usual value of the papers"),
        "epsilon_high": (0.2, "as far as below"),
        "temperature": (1.0, "the policy as it is"),
        "max_new_tokens": (128, "as in evaluations"),
        "beta": (0.0, "no reference model, as most recent work has it"),
        "updates_per_rollout": (1, "each answer is learned from once, by the policy that gave it"),
    }
    return {**usual, **LOSSES[keys.loss_type].choices}
