"""The result of a run at a service: a state to train further, what answers there, and the adapter as a PEFT folder.

Of a service that gives no adapters away the result is a name there.
"""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runner.backends import Events, Result
from runner.errors import ModelError, ServiceError
from runner.models import model_reference, remote_model
from runner.models.remote_model import RemoteModel
from runner.models.source import ModelIdentity
from runner.record import layout
from runner.record.events import Created, Note, Progress
from runner.remote.engine.remote_engine import RemoteEngine
from runner.remote.engine.service import Save, Service
from runner.remote.engine.session import CHECKPOINT
from runner.remote.target import Target

if TYPE_CHECKING:
    from runner.plan import Run

ADAPTER = "adapter-1"
EXPORT_SECONDS = 86_400
"""How long the service keeps the files that are fetched: they are needed once."""


class OfStep(Protocol):
    """What training has ended with."""

    @property
    def step(self) -> int:
        """The step whose weights are the result."""


def save(run: "Run", engine: RemoteEngine, target: Target, trained: OfStep) -> Events:
    """Save the model of the session, which is the result, at the service, and here where it gives the adapter away."""
    engine.training_now = False
    # Names of their own, kept for good: the checkpoints of training expire.
    name = f"result-{trained.step:08d}"
    paths: dict[str, str] = {}
    saves = [Save(name), *([Save(name, "sampler"), Save(name, "export", EXPORT_SECONDS)] if target.exports else [])]
    for number, save in enumerate(saves):
        yield Progress("save", number, len(saves) + 1)
        # Asked and not performed: of a save that was made already the name is found, so that nothing is made twice.
        paths[save.what] = engine.driver.ask(save, trained.step).path
        yield Created(CHECKPOINT, paths[save.what], {"for": save.what})
    # Where a session answers for its own model alone, a state is what answers later: in a session made of it.
    state, sampler = paths["state"], paths.get("sampler", paths["state"])
    draft = run.folder / f".{layout.MODEL}"
    # Of a process that was killed while it fetched.
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    service, origin = engine.driver.service, target.origin
    steps = origin.steps + trained.step
    model = RemoteModel(target.name, service.endpoint, origin.base_model, state, sampler, _source(run), steps)
    remote_model.write(draft, model)
    found: Result = {"state": state, "sampler": sampler}
    if target.exports:
        yield Progress("save", len(saves), len(saves) + 1, what="fetching the adapter")
        found |= {"model": str(run.folder / layout.MODEL), "digest": _fetch(run, service, paths["export"], draft)}
    else:
        found |= {"model": target.reference(state), "external": True, "job": engine.driver.handle.session}
        yield Note(f"the model is {found['model']}")
    folder = run.folder / layout.MODEL
    shutil.rmtree(folder, ignore_errors=True)
    # Killed before this line there is no model, but neither is there a `save` in the journal: it is done again.
    draft.rename(folder)
    return found


def _fetch(run: "Run", service: Service, path: str, folder: Path) -> str:
    """Put an exported adapter into a model's folder, as peft loads it, and return the digest of its weights."""
    (folder / ADAPTER).mkdir()
    service.checkpoints.download(path, folder / ADAPTER)
    base = _base(run)
    _name_base(folder / ADAPTER, base.source)
    return model_reference.write(folder, run.plan.id, base, [ADAPTER], full=False).digest


def demand(run: "Run") -> RemoteModel:
    """Return where a run's result is; raises `ModelError` where it has none yet."""
    found = remote_model.read(run.folder)
    if found is None:
        raise ModelError(f"model.source: {run.folder.name} has no model yet; let that run finish first.")
    return found


def _base(run: "Run") -> ModelIdentity:
    """Return the base model that the adapter is for: of an earlier run's result that one's own.

    At the service training continues in that run's adapter, so that there is one for both.
    """
    scheme, _, name = run.plan.model.source.partition(":")
    if scheme != "run":
        return run.plan.model
    from runner.models.sources.run import find

    return model_reference.demand(find(name) / layout.MODEL, run.plan.model.source).base


def _source(run: "Run") -> str:
    """Return the base model as `model.source` names it: of an earlier run's result that one's own."""
    scheme, _, name = run.plan.model.source.partition(":")
    if scheme != "run":
        return run.plan.model.source
    from runner.models.sources.run import find

    found = remote_model.read(find(name))
    return found.source if found is not None else ""


def _name_base(folder: Path, source: str) -> None:
    """Name the base model in peft's own file. Raises `ServiceError` where what was fetched is no adapter."""
    path = folder / "adapter_config.json"
    if not path.exists():
        names = ", ".join(sorted(file.name for file in folder.iterdir())) or "nothing"
        raise ServiceError(
            f"{folder}: the service's export is no PEFT adapter ({names}); the model is kept there, and the same "
            "command continues once this is known."
        )
    # peft notes the service's own name of the base, which means nothing to who loads it here.
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": source}, indent=2))
