"""What a method is: the data it learns from, its hyperparameters, its loss. One file a method.

A new method is a file here that ends in `METHOD = Method(...)` and a YAML in `conf/method/`. Losses are
pure functions of one row's log-probabilities; the training loop knows no method by name. torch is
imported inside the loss functions only, so that a plan never loads it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from runner.data.rows import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What a model says of one row's answers; each tensor has shape (answers,).

    A pair has two answers, `chosen` then `rejected`; a conversation is one answer that holds all the
    assistant's turns. `logps` are summed over an answer's tokens, in nats; `num_correct` counts the
    tokens that greedy decoding would have got right.
    """

    logps: "Tensor"
    num_tokens: "Tensor"
    num_correct: "Tensor"


@dataclass(frozen=True)
class Method:
    """A way to learn from rows.

    `loss(policy, reference_logps, hyperparameters)` returns the loss of one row and the metrics to show
    beside it, all scalars. A batch's loss is their mean weighted by `weight(num_tokens)`, of the tokens
    learned in each answer, so that gradients do not depend on how a batch is cut into rows.
    `resolve(hyperparameters, num_rows)` replaces each `auto` that the runner decides and returns the
    reasons by key.
    """

    name: str
    kind: Kind
    hyperparameters: type
    needs_reference: bool
    loss: Callable[[Scores, "Tensor | None", Any], tuple["Tensor", dict[str, "Tensor"]]]
    weight: Callable[[tuple[int, ...]], float]
    resolve: Callable[[Any, int], tuple[Any, Mapping[str, str]]]


def load(name: str) -> Method:
    """Return the method of that name; `name` comes from a checked request."""
    method: Method = import_module(f"runner.methods.{name}").METHOD
    return method
