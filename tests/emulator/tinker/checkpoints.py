"""Checkpoints of the emulated service: of three kinds, saved, listed, deleted, downloaded."""

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.primitives.records import Checkpoint, accepted, stamp
from tests.emulator.tinker.sampling import sampler

if TYPE_CHECKING:
    from tests.emulator.tinker.emulator import TinkerEmulator as Service

KINDS = {"weights": "training", "sampler_weights": "sampler", "external_weights": "external"}


def saving(kind: str, operation: str) -> Callable[..., Answer]:
    """Return the operation that saves a checkpoint of one kind; such requests are never deduplicated (as in SkyRL)."""

    def save(service: "Service", request: Request) -> Answer:
        body = request.json()
        with service.lock:
            model = service.model(body["model_id"])
            # A sampler's weights without a name are for one sampling session only.
            name = body.get("path") or f"ephemeral-{body.get('sampling_session_seq_id')}"
            path = f"tinker://{model.id}/{kind}/{name}"
            service.demand_free(path, body.get("overwrite", False))

            def work() -> dict[str, Any]:
                weights = model.trainer.weights()
                service.checkpoints[path] = Checkpoint(path, KINDS[kind], weights, body.get("ttl_seconds"))
                if kind == "external_weights":
                    model.trainer.export(service.folder / _place(path))
                if body.get("path"):
                    return {"type": operation, "path": path}
                made = sampler(service, model.session, path, model.trainer.base)
                return {"type": operation, "sampling_session_id": made.id}

            return accepted(service.begin(operation, model, work))

    return save


def listed(service: "Service", request: Request, id: str) -> Answer:
    """List the checkpoints of a model; those of a session that is over, too."""
    if id not in service.models:
        raise Refusal(404, f"Training run {id} not found.", "not_found")
    found = [each for path, each in service.checkpoints.items() if path.startswith(f"tinker://{id}/")]
    shown = [
        {
            "checkpoint_id": each.id, "checkpoint_type": each.kind, "time": stamp(each.time), "tinker_path": each.path,
            "expires_at": stamp(each.time + each.ttl_seconds) if each.ttl_seconds else None,
        }
        for each in found
    ]  # fmt: skip
    return Answer(body={"checkpoints": shown})


def delete(service: "Service", request: Request, id: str, checkpoint: str) -> Answer:
    """Delete a checkpoint."""
    with service.lock:
        del service.checkpoints[service.checkpoint(f"tinker://{id}/{checkpoint}").path]
    return Answer(204)


def external_urls(service: "Service", request: Request, id: str, checkpoint: str) -> Answer:
    """Return where each file of exported weights can be had, without a key."""
    path = service.checkpoint(f"tinker://{id}/{checkpoint}").path
    folder = service.folder / _place(path)
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    urls = {name: f"{service.url}/export/{_place(path)}/{name}" for name in names}
    return Answer(body={"urls": urls, "expires": stamp(datetime.now(UTC).timestamp() + 900)})


def export(service: "Service", request: Request, place: str, name: str) -> Answer:
    """Return a file of exported weights."""
    return Answer(body=(service.folder / place / name).read_bytes())


def _place(path: str) -> str:
    return re.sub(r"[^\w-]", "-", path)
