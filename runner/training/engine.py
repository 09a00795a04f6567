"""The contract of an engine: what the training loop drives, in the primitives that hosted services offer, too.

A service subclasses `ByPrimitives` (by_primitives.py), which has any of our losses by `forward` and `forward_backward`;
an engine that has a loss in one pass, as the in-process one of the local backend, is an `Engine` outright.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
from runner.record.samples import Sampling
from runner.training.evaluated import Saved
from runner.training.examples import Example, Examples
from runner.training.loss import Loss, Rows

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

Pending = Callable[[], Mapping[str, float]]
"""Numbers by name that are not waited for until they are called for: a device or a service may still be at them."""


@dataclass(frozen=True)
class Abilities:
    """What an engine guarantees and what it lacks."""

    lost_answer: Literal["impossible", "repeat", "probe", "unknown"]
    """When an answer is lost: that cannot happen; the same request may be sent again; the weights tell; nobody can."""
    exact_resume: bool
    """Whether a run that is taken up from a saved state ends in the same bits."""
    clips: bool
    """Whether `optim_step` scales long gradients down."""
    likeliest: bool
    """Whether `forward` reports which tokens are the likeliest; without that token accuracy is not a number."""
    lacks: Mapping[str, str]
    """Keys of a local run that the engine cannot honour, such as `lora.dropout`, each with the reason."""


@dataclass(frozen=True)
class Adam:
    """The numbers of an optimizer step: AdamW's (Loshchilov and Hutter 2019, arXiv:1711.05101)."""

    learning_rate: float
    weight_decay: float = 0.0
    max_grad_norm: float | None = None
    # torch's defaults, sent to every engine: those of services differ (0.95, 1e-12).
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class TokenLogps:
    """Scores of the learned tokens of some rows, each of shape (tokens,): row after row, answer after answer.

    `logps` in nats; `likeliest` says where the token is the one that greedy decoding would have taken.
    """

    logps: "NDArray[np.floating]"
    likeliest: "NDArray[np.bool_] | None" = None


@dataclass(frozen=True)
class Sampled:
    """An answer: its token ids, the end included, the log-probability of each, and whether it ended by itself."""

    ids: Sequence[int]
    logps: Sequence[float]
    ended: bool

    def text(self, tokenizer: ChatTokenizer) -> str:
        """Return the answer without its end."""
        return tokenizer.decode(self.ids[:-1] if self.ended else self.ids).strip()


OnAnswer = Callable[[int, int, Sampled], None]
"""Hears of an answer: the place of its prompt, its number among the answers to it, and the answer."""


def ignore_answer(place: int, number: int, answer: Sampled) -> None:
    """Do nothing: nobody waits for single answers."""


class Engine(ABC):
    """A model that learns: its weights, their gradient and their optimizer, wherever these are."""

    abilities: Abilities
    """What the engine states about itself; a plan or the loop refuses what it lacks."""

    @abstractmethod
    def forward(self, rows: Sequence[TokenRow]) -> TokenLogps:
        """Return the scores of rows' learned tokens under the weights as they are; no gradient."""

    @abstractmethod
    def forward_backward(self, rows: Sequence[TokenRow], weights: "NDArray[np.floating]") -> TokenLogps:
        """Add the gradient of -Σ weights · logps, with a weight (any sign) for each learned token; return the scores.

        This is the cross entropy of services, a plain sum.
        """

    # The loss is not asked for first and its gradient sent after: in one pass the in-process engine needs a third less.
    @abstractmethod
    def forward_backward_custom(self, examples: Sequence[Example], loss: Loss) -> Pending:
        """Add the gradient of the weighted mean of rows' losses; return that mean and the metrics' means.

        An engine that draws random numbers (dropout) takes them from its seed and the number of optimizer steps done.
        """

    @abstractmethod
    def optim_step(self, adam: Adam) -> Pending:
        """Change the weights by the gradient that has accumulated, and clear it; return numbers such as `grad_norm`."""

    @abstractmethod
    def evaluate(self, examples: Examples, loss: Loss) -> Generator[int, None, Rows]:
        """Return each row's loss, metrics and weight under the weights that would be kept; yield how many are done."""

    @abstractmethod
    def save_state(self, saved: Saved) -> None:
        """Save weights and optimizer with `saved`, under a name made of the steps done; `wait_saved` waits for it."""

    @abstractmethod
    def load_state(self) -> Saved | None:
        """Put the latest saved state in place and return what was saved with it; None where there is none.

        Raises `RunnerError` where it cannot be read.
        """

    @abstractmethod
    def save_best(self) -> None:
        """Save the weights that were just evaluated, in place of those saved so before."""

    @abstractmethod
    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer = ignore_answer
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return `sampling.per_prompt` answers to each prompt, all as token ids, by the weights that would be kept.

        `on_answer` hears of each answer that is drawn now as soon as it is there, while others are still drawn.
        """

    def close(self) -> None:
        """Let go of what is held at a service; saved states stay."""
        return

    def training(self) -> AbstractContextManager[None]:
        """Return what the loop enters while it trains: threads that write checkpoints, or keep a session alive."""
        return nullcontext()

    def wait_saved(self) -> None:
        """Return when all that was saved is safe. Raises `RunnerError` where saving has failed."""
        return

    def figures(self, num_tokens: int, seconds: float) -> dict[str, float]:
        """Return the `system/` metrics of an optimizer step over so many tokens."""
        return {"system/tokens_per_second": num_tokens / seconds}

    def timed(self, part: str) -> AbstractContextManager[None]:
        """Return what the loop enters for a part of its own work, such as `evaluation`, for a profile of the time."""
        return nullcontext()


def problems(abilities: Abilities, max_grad_norm: float | None, used: Sequence[str] = ()) -> list[str]:
    """Return a sentence for each thing asked for that an engine lacks; `used` are the keys that are set."""
    found = [f"{key}: {abilities.lacks[key]}; leave it out." for key in used if key in abilities.lacks]
    if max_grad_norm is not None and not abilities.clips:
        found.append(f"max_grad_norm: got {max_grad_norm:g}, but the engine clips no gradients; set it to null.")
    return found
