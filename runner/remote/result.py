"""The result of a run at a service: a state to train further, a sampler's weights, and the adapter as a PEFT folder."""

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from runner.backends import Events
from runner.errors import ModelError, ServiceError
from runner.models import model_reference
from runner.models.source import ModelIdentity
from runner.record import layout
from runner.record.events import Created, Progress
from runner.remote import remote_model
from runner.remote.engine.remote_engine import RemoteEngine
from runner.remote.engine.service import Save
from runner.remote.engine.session import CHECKPOINT
from runner.remote.remote_model import RemoteModel
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
    """Save the model of the session, which is the result, at the service and here."""
    engine.training_now = False
    # Names of their own, kept for good: the checkpoints of training expire.
    name = f"result-{trained.step:08d}"
    paths: dict[str, str] = {}
    for number, save in enumerate((Save(name), Save(name, "sampler"), Save(name, "export", EXPORT_SECONDS))):
        yield Progress("save", number, 4)
        # Asked and not performed: of a save that was made already the name is found, so that nothing is made twice.
        paths[save.what] = engine.driver.ask(save, trained.step).path
        yield Created(CHECKPOINT, paths[save.what], {"for": save.what})
    yield Progress("save", 3, 4, what="fetching the adapter")
    service = engine.driver.service
    model = RemoteModel(target.name, service.endpoint, target.origin.base_model, paths["state"], paths["sampler"])
    draft = run.folder / f".{layout.MODEL}"
    # Of a process that was killed while it fetched.
    shutil.rmtree(draft, ignore_errors=True)
    (draft / ADAPTER).mkdir(parents=True)
    service.checkpoints.download(paths["export"], draft / ADAPTER)
    base = _base(run)
    _name_base(draft / ADAPTER, base.source)
    remote_model.write(draft, model)
    digest = model_reference.write(draft, run.plan.id, base, [ADAPTER], full=False).digest
    folder = run.folder / layout.MODEL
    shutil.rmtree(folder, ignore_errors=True)
    # Killed before this line there is no model, but neither is there a `save` in the journal: it is done again.
    draft.rename(folder)
    return {"model": str(folder), "digest": digest, "state": model.state, "sampler": model.sampler}


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
