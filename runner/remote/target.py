"""What a backend says of its service to the steps: how to reach it, what to start from, what it can do and costs."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from runner.errors import RequestError
from runner.methods import AnyMethod
from runner.models import remote_model
from runner.models.served_model import ServedModel
from runner.models.sources.run import find
from runner.remote.keys import RemoteKeys
from runner.remote.money.rates import Rates, table
from runner.training import recipe
from runner.training.engine import Abilities
from runner.training.recipe import Recipe, of_run

if TYPE_CHECKING:
    from runner.plan import Run
    from runner.remote.engine.service import Service, Start

TOKENS_PER_REQUEST = 250_000
"""Services cut a request at 5 MB, of which a token takes 16 bytes or more."""


@dataclass(frozen=True)
class Limits:
    """What an engine states about itself, and how long checkpoints are kept that are not the result."""

    abilities: Abilities
    ttl_seconds: int | None = None
    base_model: str = ""
    # Called for: the tokenizer need not be on this machine when the plan is made.
    ends: Callable[[], Sequence[int]] = tuple
    """The ids that end an answer."""
    tokens_per_request: int = TOKENS_PER_REQUEST
    complete_logps: bool = True
    """Whether a sampler is known to report the log-probability of each token of an answer, that of its end, too."""


@dataclass(frozen=True)
class Origin:
    """What training starts from: a base model by its name at the service; of an earlier run its state and sampler."""

    base_model: str
    state: str = ""
    sampler: str = ""
    steps: int = 0
    """The optimizer steps behind the state."""


def origin_of(source: ServedModel, backend: str, refusal: str, model: str) -> Origin:
    """Return what a model's source means at the service of a backend, whose base models are those of `source`.

    Raises `RequestError` with the refusal, a clause, where it is none of the service's.
    """
    scheme, _, rest = model.partition(":")
    if scheme == source.scheme:
        return Origin(source.split(rest)[0])
    if scheme == "run":
        found = remote_model.read(find(rest))
        if found is not None and found.service == backend:
            return Origin(found.base_model, found.state, found.sampler, found.steps)
    raise RequestError(
        f"model.source: got {model}; {refusal}; use model.source={source.scheme}:ORG/NAME, or run:RUN for the result "
        f"of a run with backend={backend}."
    )


@dataclass(frozen=True)
class Place:
    """A state of a model, empty for what training starts from, and the optimizer steps of the run behind it."""

    state: str = ""
    step: int = 0


@dataclass(frozen=True, kw_only=True)
class Target:
    """A service, a model there, and the settings of a run."""

    name: str
    settings: RemoteKeys
    origin: Origin
    lora: Mapping[str, object]
    seed: int
    max_grad_norm: float | None
    limits: Limits
    shipped_prices: Path
    """The table of prices that comes with the backend."""
    kept: str
    """How long the service keeps checkpoints, as a clause for the plan."""
    reference: Callable[[str], str]
    """A checkpoint's path as commands name it."""
    exports: bool = True
    """Whether the service gives adapters away; else the result is a name there."""
    service: "Callable[[], Service]"
    tokenizer_folder: Callable[[], Path]

    @property
    def rates(self) -> Rates | None:
        """The prices of the model; None where the table has none."""
        return table(self.settings.prices, self.shipped_prices).models.get(self.origin.base_model)

    def start(self, checkpoint: str) -> "Start":
        """Return what a session begins with: a checkpoint of this run, else what training starts from."""
        from runner.remote.engine.service import Start

        # An earlier run's optimizer is not taken over: its schedule has ended.
        state, optimizer = (checkpoint, True) if checkpoint else (self.origin.state, False)
        return Start(self.origin.base_model, self.lora, self.seed, state, optimizer, self.origin.steps)

    def recipe(self, run: "Run", method: AnyMethod) -> Recipe:
        """Return what a run asks of the training loop."""
        return of_run(
            run, method, self.settings, num_steps(run),
            max_grad_norm=self.max_grad_norm, asked_checkpoints=self.settings.runtime.checkpoint_every,
        )  # fmt: skip


def num_steps(run: "Run") -> int:
    """Return the optimizer steps of a run."""
    return recipe.num_steps(run, RemoteKeys.of(run.request).max_steps)


def ends(folder: Path) -> list[int]:
    """Return the ids that end an answer, by a model's own files: a service would continue until the limit of tokens."""
    # transformers reads the same file; chat models name their end of turn there.
    path = folder / "generation_config.json"
    found = json.loads(path.read_text("utf-8")).get("eos_token_id") if path.exists() else None
    return list(found) if isinstance(found, list) else [] if found is None else [int(found)]
