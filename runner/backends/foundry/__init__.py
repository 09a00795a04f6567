"""Microsoft Foundry, the hosted service. Planned and checked here; sending the job is not built yet."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

from runner.backends import Backend, Resolved, Step
from runner.errors import RequestError
from runner.methods import Method

if TYPE_CHECKING:
    from runner.plan import Job


@dataclass(frozen=True, kw_only=True)
class Foundry:
    """Keys under `backend` with `backend=foundry`."""

    name: Literal["foundry"] = "foundry"
    """The backend."""
    training_type: Literal["Standard", "GlobalStandard", "Developer"] = "GlobalStandard"
    """The service's trainingType: where it may train, and at what price."""


def resolve(settings: Foundry, method: Method, hyperparameters: Any, num_rows: int) -> Resolved:
    """Leave `auto` to the service; refuse what a hosted job cannot take.

    Raises `RequestError` for a hyperparameter that only the local backend knows.
    """
    alpha = getattr(hyperparameters, "rpo_alpha", "auto")
    if alpha not in ("auto", 0):
        raise RequestError(
            f"dpo.rpo_alpha: got {alpha}; a hosted DPO job has no such term; leave it at auto, or use backend=local."
        )
    return settings, hyperparameters, {}


def steps(job: "Job", results: Mapping[str, dict[str, Any]]) -> Sequence[Step]:
    """Raise `RequestError`: hosted jobs cannot be sent yet."""
    raise RequestError(
        "backend: got foundry; hosted jobs are not built yet, only backend=local runs; mode=plan works for both."
    )


BACKEND = Backend(name="foundry", settings=Foundry, resolve=resolve, identity=asdict, takes_tools=True, steps=steps)
