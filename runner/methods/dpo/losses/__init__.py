"""The losses that `dpo.loss_type` chooses from: one function per loss, and the keys that they share.

A loss compares the scores of two answers, chosen and rejected, in nats, each of shape (rows,):

    score(y) = log policy(y | x) - log reference(y | x)      or log policy(y | x), where it is reference-free

divided by the answer's tokens where the loss is `per_token`, or `dpo.length_normalised` asks for it. It returns
shape (rows,). A loss's keyword arguments are the keys it knows; it is refused together with any other.

A new loss is a function under `@loss_type(…)` in any file of this folder; its name is what `dpo.loss_type` takes. A key
of its own is a field of `LossKeys`, and a line in `NEUTRAL` so that other losses refuse it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from inspect import signature
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Annotated, Literal

from msgspec import Meta

from runner.request.types import Auto, NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[..., "Tensor"]
"""`(chosen, rejected, *, beta, …) -> losses`, all of shape (rows,)."""
Choices = dict[str, tuple[object, str]]
"""What `auto` means, and why, by key."""


@dataclass(frozen=True)
class LossType:
    """A loss, and what the runner has to know of it before torch is there.

    `reference`: scores are relative to a reference model. `per_token`: scores are always per token. `needs`: keys
    without which the loss is another one. `choices`: what `auto` means where it is not what it means elsewhere.
    """

    function: Loss
    reference: bool
    per_token: bool
    needs: tuple[str, ...]
    choices: Choices

    @property
    def keys(self) -> frozenset[str]:
        """Names of the keys that make a difference to this loss."""
        # The keyword-only arguments of the function are its keys, so that no list of them can be out of date.
        named = (each.name for each in signature(self.function).parameters.values() if each.kind is each.KEYWORD_ONLY)
        return frozenset(named) | (frozenset() if self.per_token else {"length_normalised"})


LOSSES: dict[str, LossType] = {}
"""Every loss by its name."""


def loss_type(
    *, reference: bool = True, per_token: bool = False, needs: tuple[str, ...] = (), **choices: tuple[object, str]
) -> Callable[[Loss], Loss]:
    """Return a decorator that puts a function among the losses, under its own name."""

    def register(function: Loss) -> Loss:
        LOSSES[function.__name__] = LossType(function, reference, per_token, needs, choices)
        return function

    return register


# Imported for its decorators, which put the losses into `LOSSES`.
for _module in iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")

NEUTRAL: Mapping[str, object] = {"label_smoothing": 0.0, "length_normalised": False, "gamma": 0.0}
"""What a key that not every loss knows must be where the loss does not know it."""

# The type of the key is made of the names that were registered, so that a wrong one is refused with all of them.
if TYPE_CHECKING:
    LossName = str
else:
    LossName = Literal[tuple(LOSSES)]


@dataclass(frozen=True, kw_only=True)
class LossKeys:
    """Keys under `dpo` that say what is minimised."""

    loss_type: LossName = "sigmoid"
    """Which loss: `sigmoid` is DPO itself, and a hosted job's; `simpo` and `orpo` need no reference model."""
    beta: PositiveFloat | Auto = "auto"
    """How closely the policy is held to the reference, smaller lets it go further: DPO 0.1 to 0.5, by token 2 to 10."""
    rpo_alpha: NonNegativeFloat | Auto = "auto"
    """Weight of the SFT term on the chosen answer, whatever the loss; 0 leaves it out, as a hosted job does."""
    label_smoothing: Annotated[float, Meta(ge=0, lt=0.5)] = 0.0
    """Share of the pairs thought to be the wrong way round; for `sigmoid`, `simpo` and `robust`, which needs it."""
    length_normalised: bool = False
    """Compare the answers by log-ratios per token, not summed; `ipo`, `simpo` and `orpo` always do."""
    gamma: NonNegativeFloat | Auto = "auto"
    """The margin of rewards that `simpo` aims at."""


def problems(keys: LossKeys) -> Iterator[str]:
    """Yield a sentence for each key that the chosen loss does not know, or lacks."""
    name, loss = keys.loss_type, LOSSES[keys.loss_type]
    for key, neutral in NEUTRAL.items():
        value = getattr(keys, key)
        if key not in loss.keys and value not in ("auto", neutral):
            knowing = ", ".join(other for other, each in LOSSES.items() if key in each.keys)
            why = f"dpo.loss_type={name} does not use it"
            if key == "length_normalised":
                why = f"dpo.loss_type={name} compares answers per token anyway"
            yield f"dpo.{key}: got {value}, but {why}; leave it out, or take a loss that has: {knowing}."
        if key in loss.needs and value == neutral:
            yield f"dpo.{key}: got {value}, but dpo.loss_type={name} needs a value above; give dpo.{key}=0.1, say."


def unused(keys: LossKeys) -> list[str]:
    """Return the keys that the chosen loss does not know."""
    return [key for key in NEUTRAL if key not in LOSSES[keys.loss_type].keys]


def choices(keys: LossKeys) -> Choices:
    """Return what `auto` means for the chosen loss, with the reason, by key."""
    loss = LOSSES[keys.loss_type]
    usual: Choices = {
        "beta": (0.1, "the usual value of the paper"),
        "rpo_alpha": (1.0, "keeps answers whole while the margin grows"),
        "gamma": (NEUTRAL["gamma"], f"{keys.loss_type} aims at no margin"),
    }
    if keys.length_normalised:
        usual["beta"] = (5.0, "Tulu 3's value; log-ratios per token are small")
    return usual | loss.choices
