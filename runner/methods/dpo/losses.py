"""The losses that `dpo.loss_type` chooses from: one function a loss, and the keys that they share.

A loss compares the scores of two answers, chosen and rejected, in nats, each of shape (rows,):

    score(y) = log policy(y | x) - log reference(y | x)      or log policy(y | x), where it is reference-free

divided by the answer's tokens where the loss is `per_token`, or `dpo.length_normalised` asks for it. It returns
shape (rows,). A loss's keyword arguments are the keys it knows; it is refused together with any other.

A new loss is a function here under `@loss_type(…)`; its name is what `dpo.loss_type` takes. A key of its own is a
field of `LossKeys`, and a line in `NEUTRAL` so that other losses refuse it.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import TYPE_CHECKING, Annotated, Any, Literal

from msgspec import Meta

from runner.request.types import Auto, NonNegativeFloat, PositiveFloat

if TYPE_CHECKING:
    from torch import Tensor

Loss = Callable[..., "Tensor"]
"""`(chosen, rejected, *, beta, …) -> losses`, all of shape (rows,)."""
Choices = dict[str, tuple[Any, str]]
"""What `auto` means, and why, by key."""


@dataclass(frozen=True)
class LossType:
    """A loss, and what the runner has to know of it before torch is there.

    `reference`: scores are relative to a reference model. `per_token`: scores are always a token's. `needs`: keys
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
        named = (each.name for each in signature(self.function).parameters.values() if each.kind is each.KEYWORD_ONLY)
        return frozenset(named) | (frozenset() if self.per_token else {"length_normalised"})


LOSSES: dict[str, LossType] = {}
"""Every loss by its name."""


def loss_type(
    *, reference: bool = True, per_token: bool = False, needs: tuple[str, ...] = (), **choices: tuple[Any, str]
) -> Callable[[Loss], Loss]:
    """Return a decorator that puts a function among the losses, under its own name."""

    def register(function: Loss) -> Loss:
        LOSSES[function.__name__] = LossType(function, reference, per_token, needs, choices)
        return function

    return register


def _smoothed(margin: "Tensor", label_smoothing: float) -> "Tensor":
    """Return -log sigmoid(margin), a share `label_smoothing` of it for the pair the other way round."""
    from torch.nn.functional import logsigmoid

    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


@loss_type()
def sigmoid(chosen: "Tensor", rejected: "Tensor", *, beta: float, label_smoothing: float) -> "Tensor":
    """DPO (Rafailov et al. 2023, arXiv:2305.18290), equation 7: -log sigmoid(beta * (chosen - rejected)).

    With `label_smoothing` it is conservative DPO (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf, equation 3):
    minimal where the policy prefers the chosen answer with probability 1 - label_smoothing. TRL's `sigmoid` has no
    smoothing. With `length_normalised` it is TRL's `sigmoid_norm`, the loss of Tulu 3 (arXiv:2411.15124).
    """
    return _smoothed(beta * (chosen - rejected), label_smoothing)


@loss_type(per_token=True, beta=(0.5, "the margin aimed at, 1 / (2 beta), is then 1 nat a token"))
def ipo(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """IPO (Azar et al. 2023, arXiv:2310.12036), equation 17: (chosen - rejected - 1 / (2 beta))^2, beta its tau.

    Departure: the paper's scores are sums, ours and TRL's are a token's, which IPO's authors told TRL they meant.
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


@loss_type()
def hinge(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """SLiC (Zhao et al. 2023, arXiv:2305.10425): max(0, 1 - beta * (chosen - rejected)).

    Departure: SLiC compares the policy's log-probabilities. As in TRL the reference's are taken off, which is the
    hinge-norm of RSO (Liu et al. 2023, arXiv:2309.06657).
    """
    from torch import relu

    return relu(1 - beta * (chosen - rejected))


@loss_type(needs=("label_smoothing",))
def robust(chosen: "Tensor", rejected: "Tensor", *, beta: float, label_smoothing: float) -> "Tensor":
    """Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409): DPO's loss, unbiased where labels are flipped.

    ((1 - e) * loss(chosen, rejected) - e * loss(rejected, chosen)) / (1 - 2 e), where the share e = `label_smoothing`
    of the pairs is the wrong way round. It has no lower bound: what a pair gains by being right goes on growing.
    """
    from torch.nn.functional import logsigmoid

    margin = beta * (chosen - rejected)
    right, flipped = -logsigmoid(margin), -logsigmoid(-margin)
    return ((1 - label_smoothing) * right - label_smoothing * flipped) / (1 - 2 * label_smoothing)


@loss_type(rpo_alpha=(0.0, "apo_zero raises the chosen answer by itself"))
def apo_zero(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266), equation 7.

    1 - sigmoid(beta * chosen) + sigmoid(beta * rejected): the chosen answer up and the rejected one down, each by
    itself; for answers that are better than what the model says.
    """
    from torch import sigmoid

    return 1 - sigmoid(beta * chosen) + sigmoid(beta * rejected)


@loss_type(rpo_alpha=(0.0, "sppo_hard raises the chosen answer by itself"))
def sppo_hard(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """SPPO (Wu et al. 2024, arXiv:2405.00675), equation 4.7, as TRL has it.

    (chosen - 1 / (2 beta))^2 + (rejected + 1 / (2 beta))^2, 1 / beta being the paper's eta. Departure: the paper
    estimates how likely an answer wins; a pair says so outright, so the probabilities are 1 and 0.
    """
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


@loss_type(
    reference=False,
    per_token=True,
    beta=(2.0, "where SimPO's authors begin; rewards are a token's, so it is larger than DPO's"),
    gamma=(1.0, "half of the usual beta, where SimPO's authors begin"),
    rpo_alpha=(0.0, "SimPO has no such term"),
)
def simpo(chosen: "Tensor", rejected: "Tensor", *, beta: float, gamma: float, label_smoothing: float) -> "Tensor":
    """SimPO (Meng et al. 2024, arXiv:2405.14734), equation 6: -log sigmoid(beta * (chosen - rejected) - gamma).

    `gamma` is the target margin of rewards, as in the paper and in TRL's `simpo_gamma`; the authors' code has
    gamma / beta as a key. With `label_smoothing` as in TRL's CPO trainer.
    """
    return _smoothed(beta * (chosen - rejected) - gamma, label_smoothing)


@loss_type(
    reference=False,
    per_token=True,
    beta=(0.1, "the weight of the odds ratio in the paper, its lambda"),
    rpo_alpha=(0.0, "ORPO's loss holds the chosen answer's likelihood already"),
)
def orpo(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """ORPO (Hong et al. 2024, arXiv:2403.07691), equations 6 and 7; `beta` is its lambda, as in TRL.

    -chosen + beta * -log sigmoid(log (odds(chosen) / odds(rejected))), where odds(y) = p / (1 - p) of the mean
    token's p = exp(score). Departure from TRL: the likelihood is the answer's; TRL takes in the prompt's tokens too.
    """
    import torch
    from torch.nn.functional import logsigmoid

    def log_odds(score: torch.Tensor) -> torch.Tensor:
        # An answer that is certain, to float32, has infinite odds and no gradient that is a number.
        below = score.clamp(max=-1e-6)
        return below - torch.log(-torch.expm1(below))

    return -chosen - beta * logsigmoid(log_odds(chosen) - log_odds(rejected))


NEUTRAL: Mapping[str, Any] = {"label_smoothing": 0.0, "length_normalised": False, "gamma": 0.0}
"""What a key that not every loss knows must be where the loss does not know it."""

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
    """Compare the answers by log-ratios a token, not summed; `ipo`, `simpo` and `orpo` always do."""
    gamma: NonNegativeFloat | Auto = "auto"
    """The margin of rewards that `simpo` aims at."""


def problems(keys: LossKeys) -> Iterator[str]:
    """Yield a sentence for each key that the chosen loss does not know, or lacks."""
    name, loss = keys.loss_type, LOSSES[keys.loss_type]
    for key, neutral in NEUTRAL.items():
        value = getattr(keys, key)
        if key not in loss.keys and value not in ("auto", neutral):
            knowing = ", ".join(other for other, each in LOSSES.items() if key in each.keys)
            why = f"dpo.loss_type={name} has no use for it"
            if key == "length_normalised":
                why = f"dpo.loss_type={name} compares answers a token anyway"
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
        usual["beta"] = (5.0, "Tulu 3's value; log-ratios a token are small")
    return usual | loss.choices
