"""What a method is: the data it learns from, its hyperparameters, its loss. One file or package a method.

A new method is a module here that ends in `METHOD = Method(...)` and a YAML in `conf/method/`. Losses are
pure functions of the rows' log-probabilities; neither the training loop nor a backend knows a method or its
keys by name. torch is imported inside the loss functions only, so that a plan never loads it.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from runner.data.rows import Kind

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Scores:
    """What a model says of the answers of some rows; each tensor has shape (rows, answers).

    A pair has two answers, `chosen` then `rejected`; a conversation is one answer that holds all the
    assistant's turns. `logps` are summed over an answer's tokens, in nats; `num_correct` counts the
    tokens that greedy decoding would have got right.
    """

    logps: "Tensor"
    num_tokens: "Tensor"
    num_correct: "Tensor"


def _nothing_wrong(hyperparameters: Any) -> Iterable[str]:
    return ()


def _nothing_unused(hyperparameters: Any) -> Iterable[str]:
    return ()


@dataclass(frozen=True)
class Method:
    """A way to learn from rows.

    `loss(policy, reference_logps, hyperparameters)` returns the loss of each row, shape (rows,), and the
    metrics to show beside it, likewise (rows,) each, named `measures`; a row's loss does not depend on the rows beside
    it.
    `reference_logps` has shape (rows, answers) and is None where `needs_reference(hyperparameters)` is false.
    A batch's loss is its rows' mean weighted by `weight(num_tokens)`, of the tokens learned in each answer,
    so that gradients do not depend on how a batch is cut.
    `resolve(hyperparameters, num_rows)` replaces each `auto` that the runner decides and returns the reasons
    by key. `problems(hyperparameters)` are sentences on keys that do not go together, `auto` still in place;
    `unused(hyperparameters)` names the keys that have no effect given the others, and are not shown.
    `hosted` names the keys that a hosted job of this method does not take, each with the value that
    means what the service does; all other keys are sent as they are.
    """

    name: str
    kind: Kind
    hyperparameters: type
    needs_reference: Callable[[Any], bool]
    loss: Callable[[Scores, "Tensor | None", Any], tuple["Tensor", dict[str, "Tensor"]]]
    measures: tuple[str, ...]
    weight: Callable[[tuple[int, ...]], float]
    resolve: Callable[[Any, int], tuple[Any, Mapping[str, str]]]
    problems: Callable[[Any], Iterable[str]] = _nothing_wrong
    unused: Callable[[Any], Iterable[str]] = _nothing_unused
    hosted: Mapping[str, Any] = field(default_factory=dict)


def shown(name: str, hyperparameters: Mapping[str, Any]) -> dict[str, Any]:
    """Return a plan's hyperparameters that make a difference, by the keys people type: `dpo.beta`."""
    method = load(name)
    unused = set(method.unused(msgspec.convert(hyperparameters, method.hyperparameters)))
    return {f"{name}.{key}": value for key, value in hyperparameters.items() if key not in unused}


def load(name: str) -> Method:
    """Return the method of that name; `name` comes from a checked request."""
    method: Method = import_module(f"runner.methods.{name}").METHOD
    return method
