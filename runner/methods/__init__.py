"""What a method is: the rows it learns from, its hyperparameters, its loss, its metrics. One file or package each.

A new method is a module here that ends with `METHOD = …` and a YAML file in `conf/method/`. Losses are pure functions
of log-probabilities; neither the training loop nor a backend knows a method or its keys by name. torch is imported
inside the loss functions only, so that a plan never loads it.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import msgspec

from runner.data.json_value import Json
from runner.request.types import Auto, PositiveFloat, PositiveInt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Hyperparameters:
    """Keys of every method, named as hosted services name them."""

    n_epochs: PositiveInt | Auto = "auto"
    """Passes over the training rows."""
    batch_size: PositiveInt | Auto = "auto"
    """Rows per optimizer step."""
    learning_rate_multiplier: PositiveFloat | Auto = "auto"
    """Factor on the backend's own learning rate."""


Keys = TypeVar("Keys", bound=Hyperparameters)


@dataclass(frozen=True)
class TokenScores:
    """Scores of rows' learned tokens under a model, each of shape (tokens,): row after row, answer after answer.

    `logps` in nats; `owner` is the answer that a token belongs to, counted through all rows; `correct` is 1 where
    greedy decoding would have got the token right.
    """

    logps: "Tensor"
    owner: "Tensor"
    correct: "Tensor"


@dataclass(frozen=True)
class Experience:
    """What is known of answers that the policy itself has given.

    `advantages` (rows, answers) say how much better an answer is than the others. Of each learned token, (tokens,):
    `old_logps` under the policy that sampled, None where that is the policy as it is; `reference_logps` under the
    reference, None where nothing is held to it.
    """

    advantages: "Tensor"
    old_logps: "Tensor | None" = None
    reference_logps: "Tensor | None" = None


@dataclass(frozen=True)
class BatchStatistics:
    """What is known of all rows of a batch, or of all held-out rows, before the first of them has its loss.

    `kl` is the divergence of the policy from the reference in nats, where the method asks for it (`Method.needs_kl`);
    `targets` are the means of the rows' targets.
    """

    kl: float
    targets: tuple[float, ...]


@dataclass(frozen=True)
class Scores:
    """Scores of the answers of some rows under a model; each tensor has shape (rows, answers).

    A pair has two answers, `chosen` then `rejected`; a conversation is one answer that holds all the assistant's
    turns. `logps` are sums over the tokens of an answer, in nats; `num_correct` counts the tokens that greedy decoding
    would have got right. `tokens` is there where the method asks for it (`Method.by_token`).
    """

    logps: "Tensor"
    num_tokens: "Tensor"
    num_correct: "Tensor"
    tokens: TokenScores | None = None
    targets: "Tensor | None" = None
    """Numbers of the rows other than their tokens (`Row.targets`), shape (rows, targets); None where there are none."""
    experience: Experience | None = None
    """Rewards of answers sampled from the policy; None where others have written the answers."""
    batch: BatchStatistics | None = None
    """What the rows are part of."""
    rewards: "Tensor | None" = None
    """The head's number for each answer, of a reward model; the log-probabilities are then NaN."""

    @classmethod
    def of_tokens(cls, tokens: TokenScores, shape: tuple[int, int], by_token: bool) -> "Scores":
        """Return the scores of (rows, answers) answers, summed over their tokens, which are kept where asked."""
        import torch

        zeros = torch.zeros(shape[0] * shape[1], device=tokens.logps.device, dtype=tokens.logps.dtype)
        # index_add sums the tokens of each answer, which may lie anywhere.
        logps, num_tokens, num_correct = (
            zeros.index_add(0, tokens.owner, each).view(shape)
            for each in (tokens.logps, torch.ones_like(tokens.logps), tokens.correct)
        )
        return cls(logps, num_tokens, num_correct, tokens if by_token else None)

    def summed(self, values: "Tensor") -> "Tensor":
        """Return the sums over each answer's tokens, shape (rows, answers), of one value a token."""
        assert self.tokens is not None
        return values.new_zeros(self.logps.numel()).index_add(0, self.tokens.owner, values).view(self.logps.shape)


@dataclass(frozen=True)
class Metric:
    """A value that is measured, as `train/NAME` or `eval/NAME`: how it is called, and which direction is better."""

    name: str
    label: str
    lower_is_better: bool = False
    is_share: bool = False
    """Printed as a percentage."""
    headline: bool = False
    """Shown while training and in the line of a trial."""
    shown: bool = True
    """Shown in tables."""


LOSS = Metric("loss", "loss", lower_is_better=True, headline=True)
REWARDS = (
    Metric("reward_accuracy", "reward accuracy", is_share=True, headline=True),
    Metric("reward_margin", "reward margin"),
    *(Metric(name, name.replace("_", " "), shown=False) for name in ("reward_chosen", "reward_rejected")),
)
"""What is measured of good and bad answers, in pairs or alone: how often, and by how much, the good ones win."""
KL = Metric("kl", "KL divergence from the base model", lower_is_better=True, shown=False)
IN_STYLE = Metric("in_style", "answers in style", is_share=True)


class Method(ABC, Generic[Keys]):
    """A way to learn from rows."""

    name: str
    """The method, as in `method=NAME` and in the prefix of its keys."""
    kind: str
    """The kind of rows that it learns from, a file of `runner/data/kinds/`."""
    hyperparameters: type[Keys]
    """The dataclass of its keys."""
    metrics: tuple[Metric, ...]
    """What `loss` measures besides the loss."""
    headline: str = LOSS.name
    """The metric that runs are ranked by and that a search looks for, on held-out rows."""
    graded: ClassVar[bool] = False
    """Whether it learns from answers of the model's own, sampled while it trains, which the grader that its key
    `grader` names scores. It needs a backend that does so (`Backend.grades`); its `loss` has `Scores.experience`."""
    loop_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys that only our own loop takes: a hosted job leaves them out, and a plan says so."""
    service_keys: ClassVar[frozenset[str]] = frozenset()
    """Keys that only a hosted service takes."""

    reward_model: ClassVar[bool] = False
    """Whether it trains a head that gives an answer a number, in place of likelihoods (`Scores.rewards`)."""
    linear: ClassVar[bool] = False
    """Whether the loss is linear in the log-probabilities: its gradient is then known before they are."""

    def loss(
        self, policy: Scores, reference_logps: "Tensor | None", hyperparameters: Keys
    ) -> tuple["Tensor", dict[str, "Tensor"]]:
        """Return the loss of each row, shape (rows,), and the metrics by name, likewise (rows,) each.

        `reference_logps` has shape (rows, answers); it is None if the loss needs no reference. The loss of a row does
        not depend on the rows next to it, but for what `Scores.batch` says of them.
        """
        raise NotImplementedError

    @abstractmethod
    def resolve(self, hyperparameters: Keys, num_rows: int) -> tuple[Keys, Mapping[str, str]]:
        """Replace each `auto` that the runner decides; return the keys and the reason for each value, by key."""

    def passes(self, hyperparameters: Keys) -> int:
        """Return how often each row is learned from; the keys are resolved."""
        return msgspec.convert(hyperparameters.n_epochs, int)

    def interval(self, hyperparameters: Keys, asked: int | Literal["auto"]) -> int | Literal["auto"]:
        """Return the optimizer steps between evaluations: `asked`, or what a key of the method's own says."""
        return asked

    def needs_reference(self, hyperparameters: Keys) -> bool:
        """Say whether the loss compares the policy with the reference."""
        return False

    def needs_kl(self, hyperparameters: Keys) -> bool:
        """Say whether the loss is relative to the divergence of the policy from the reference (`Scores.batch.kl`).

        It is estimated by prompts with the answers to others (training/mismatched.py), and needs a reference.
        """
        return False

    def by_token(self, hyperparameters: Keys) -> bool:
        """Say whether the loss looks at each token's log-probability: only then the policy has `Scores.tokens`.

        The reference has sums alone, as no more of it is cached.
        """
        return False

    def weight(self, num_tokens: tuple[int, ...], hyperparameters: Keys) -> float:
        """Return the weight of a row in the mean loss of its batch, by the tokens learned in each of its answers.

        The sum over a batch is divided once, so gradients do not depend on how a batch is cut into packs.
        """
        return 1.0

    def problems(self, hyperparameters: Keys) -> Iterable[str]:
        """Return a sentence for each key that does not go with the others; `auto` is not resolved yet."""
        return ()

    def unused(self, hyperparameters: Keys) -> Iterable[str]:
        """Return the keys that have no effect given the others; they are not printed."""
        return ()

    def shown(self, hyperparameters: Mapping[str, Json]) -> dict[str, Json]:
        """Return the hyperparameters of a plan that make a difference, by the keys people type: `dpo.beta`."""
        # Converted again: a plan from a folder has plain JSON, and `unused` is asked of the dataclass.
        unused = set(self.unused(msgspec.convert(hyperparameters, self.hyperparameters)))
        return {f"{self.name}.{key}": value for key, value in hyperparameters.items() if key not in unused}


AnyMethod = Method[Any]


def names() -> list[str]:
    """Return the name of every method."""
    return [module.name for module in iter_modules(__path__)]


def load(name: str) -> AnyMethod:
    """Return the method of that name; `name` comes from a checked request."""
    # A method is a module, and modules are imported once: no registry, and no list to be kept.
    method: AnyMethod = import_module(f"runner.methods.{name}").METHOD
    return method


@cache
def metrics() -> dict[str, Metric]:
    """Return every metric by its name: the loss, those of all methods, and the share of answers in style."""
    found = [LOSS, *(each for name in names() for each in load(name).metrics), IN_STYLE]
    return {each.name: each for each in found}


def metric(full_name: str) -> Metric:
    """Return the metric of a full name such as `eval/loss`; a hosted job's own columns are described by their name."""
    name = full_name.rpartition("/")[2]
    return metrics().get(name) or Metric(name, name.replace("_", " "), name.endswith("loss"), name.endswith("accuracy"))


def headlines() -> list[str]:
    """Return the metrics that runs are ranked by, by name; a method's own come before the loss."""
    # The loss last: all methods have one, but of different methods it means different things.
    own = dict.fromkeys(load(name).headline for name in names())
    return sorted(own, key=lambda name: name == LOSS.name)
