"""Which request is which operation, and what each does. Source: the package `azure-ai-finetuningsessions` 1.0.0b1."""

import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from runner.training.engine import Adam
from tests.emulator import identity
from tests.emulator.messages import Answer, Request
from tests.emulator.primitives.records import Checkpoint, Model, Session, stamp
from tests.emulator.primitives.trainer import Trainer
from tests.emulator.routes import PROJECT
from tests.emulator.sessions import wire
from tests.emulator.sessions.emulator import refusal

if TYPE_CHECKING:
    from tests.emulator.sessions.emulator import SessionsEmulator as Service

TYPES = ("GlobalStandard", "DatazoneStandard", "DeveloperTier", None)
# What the service takes where a number is left out, as its documentation has it.
ADAM = {"learning_rate": 1e-4, "beta1": 0.9, "beta2": 0.95, "eps": 1e-12, "weight_decay": 0.0}
NAME = re.compile(r"[A-Za-z0-9_-]{1,255}")


class Route(NamedTuple):
    """An operation: its name for faults, and who answers."""

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Callable[..., Answer]


def create(service: "Service", request: Request) -> Answer:
    """Open a session: fresh, or out of a checkpoint with its optimizer and its count of steps."""
    body = request.json()
    lora, source = body["lora_config"], body.get("from_checkpoint")
    if body["type"] != "training" or body.get("training_type") not in TYPES:
        raise refusal(422, "invalid_request", f"training_type {body.get('training_type')!r} is not known.")
    with service.lock:
        weights = None
        if source is not None:
            weights = _checkpoint(service, source["source_session_id"], source["checkpoint_id"], "weights").weights
            if (weights.base, weights.rank) != (body["base_model"], lora["rank"]):
                raise refusal(400, "invalid_request", "The checkpoint is of another base model or rank.")
        seed = lora.get("seed") if lora.get("seed") is not None else secrets.randbelow(2**31)
        trainer = service.trainer(body["base_model"], lora["rank"], seed, lora.get("alpha"))
        if weights is not None:
            trainer.restore(weights, optimizer=True)
        session = Session(f"session_{secrets.token_hex(4)}", body.get("user_metadata") or {})
        service.sessions[session.id] = session
        session.models.append(session.id)
        model = service.models[session.id] = Model(session.id, session, trainer, session.metadata)
    return _accepted(service, "create", model, lambda: {"session_id": session.id})


def listed(service: "Service", request: Request) -> Answer:
    """List sessions, newest first; their metadata is not shown."""
    offset, limit = int(request.query.get("offset", 0)), int(request.query.get("limit", 20))
    found = sorted(service.sessions.values(), key=lambda each: each.created_at, reverse=True)
    data = [
        {
            "session_id": each.id, "base_model": _trainer(service, each).base, "status": _status(service, each),
            "is_lora": True, "lora_rank": _trainer(service, each).rank, "corrupted": False,
            "last_request_time": stamp(each.used_at),
        }
        for each in found[offset : offset + limit]
    ]  # fmt: skip
    return Answer(body={"data": data, "cursor": {"offset": offset, "limit": limit, "total_count": len(found)}})


def shown(service: "Service", request: Request, id: str) -> Answer:
    """Show a session, one that is over, too."""
    session = _session(service, id)
    trainer = _trainer(service, session)
    lora = {"rank": trainer.rank, "alpha": trainer.alpha, "seed": trainer.seed}
    model = {"base_model": trainer.base, "lora_config": lora, "model_name": None}
    status = _status(service, session)
    return Answer(body={"session_id": id, "type": "training", "status": status, "model_data": model})


def delete(service: "Service", request: Request, id: str) -> Answer:
    """Delete a session with all that it has saved."""
    with service.lock:
        _session(service, id)
        del service.sessions[id]
        for path in [path for path in service.checkpoints if path.startswith(f"loom://{id}/")]:
            del service.checkpoints[path]
    return Answer(204)


def heartbeat(service: "Service", request: Request, id: str) -> Answer:
    """Note that a session's client is alive."""
    with service.lock:
        service.session(id).beat_at = request.time
    return Answer(body={"session_id": id})


def complete(service: "Service", request: Request, id: str) -> Answer:
    """Unload a session: what is not saved is gone."""
    with service.lock:
        session = _session(service, id)
        session.finished = session.finished or "succeeded"
        for path in [path for path in service.checkpoints if path.startswith(f"loom://{id}/sampler/ss")]:
            del service.checkpoints[path]  # those without a name are for the session alone
    return Answer(body={"request_id": "none", "session_id": id, "status": "pending"})


def forward(service: "Service", request: Request, id: str) -> Answer:
    """Compute log-probabilities."""
    lessons, model = wire.lessons(request.json()["forward_input"]), service.model(id)
    return _accepted(service, "forward", model, lambda: wire.scored(service, lessons, model.trainer.forward(lessons)))


def forward_backward(service: "Service", request: Request, id: str) -> Answer:
    """Compute log-probabilities, and add up the gradient."""
    lessons, model = wire.lessons(request.json()["forward_backward_input"]), service.model(id)

    def work() -> dict[str, Any]:
        loss = wire.loss(lessons, logps := model.trainer.forward_backward(lessons))
        return wire.scored(service, lessons, logps, {"total_loss:sum": loss})

    return _accepted(service, "forward_backward", model, work)


def optim_step(service: "Service", request: Request, id: str) -> Answer:
    """Take an optimizer step: AdamW, and no clipping."""
    keys, model = {**ADAM, **request.json()["adam_params"]}, service.model(id)
    adam = Adam(keys["learning_rate"], keys["weight_decay"], None, keys["beta1"], keys["beta2"], keys["eps"])

    def work() -> dict[str, Any]:
        norm = model.trainer.optim_step(adam)
        return {"metrics": {"skyrl.ai/grad_norm": norm, "step_count": model.trainer.steps}}

    return _accepted(service, "optim_step", model, work)


def checkpoint(service: "Service", request: Request, id: str) -> Answer:
    """Save weights and optimizer under a name."""
    model, name = service.model(id), request.json()["path"]
    _demand_free(service, path := f"loom://{id}/weights/{name}", name)

    def work() -> dict[str, Any]:
        if service.unlisted:
            service.unlisted -= 1
        else:
            service.checkpoints[path] = Checkpoint(path, "training", model.trainer.weights())
        return {"path": path, "type": "save_weights"}

    return _accepted(service, "checkpoint", model, work)


def checkpoint_sample(service: "Service", request: Request, id: str) -> Answer:
    """Save weights that answer: under a name, or until the session ends."""
    model, body = service.model(id), request.json()
    name = body.get("path") or f"ss{body['sampling_session_seq_id']}_seq{body['seq_id']}"
    path = f"loom://{id}/sampler/{name}"
    if body.get("path"):
        _demand_free(service, path, name)

    def work() -> dict[str, Any]:
        service.checkpoints[path] = Checkpoint(path, "sampler", model.trainer.weights())
        return {"type": "save_weights_for_sampler"}

    return _accepted(service, "checkpoint_sample", model, work)


def sample(service: "Service", request: Request, id: str) -> Answer:
    """Answer a prompt by a sampler of this very session."""
    model, body = service.model(id), request.json()
    weights = _checkpoint(service, id, request.query.get("checkpoint_id", ""), "sampler").weights
    trainer = service.trainer(weights.base, weights.rank, weights.seed, weights.alpha)
    trainer.restore(weights, optimizer=False)
    return _accepted(service, "sample", model, lambda: wire.answers(service, trainer, body))


def checkpoints(service: "Service", request: Request, id: str) -> Answer:
    """List a session's checkpoints."""
    _session(service, id)
    found = [each for path, each in service.checkpoints.items() if path.startswith(f"loom://{id}/")]
    return Answer(
        body={
            "checkpoints": [
                {
                    "checkpoint_id": each.path.rpartition("/")[2],
                    "checkpoint_type": each.kind,
                    "time": stamp(each.time),
                }
                for each in found
            ]
        }
    )


def one_checkpoint(service: "Service", request: Request, id: str, name: str) -> Answer:
    """Show a checkpoint: not how many steps are behind it."""
    weights = _checkpoint(service, id, name, "weights").weights
    return Answer(body={"base_model": weights.base, "is_lora": True, "lora_rank": weights.rank})


def look(service: "Service", request: Request, id: str, name: str) -> Answer:
    """Return what a request has come to."""
    _session(service, id)
    return service.look(name)


def _accepted(service: "Service", operation: str, model: Model, work: Callable[[], dict[str, Any]]) -> Answer:
    with service.lock:
        future = service.begin(operation, model, work)  # type: ignore[arg-type]
    return Answer(body={"request_id": future.id, "session_id": model.id, "status": "pending"})


def _session(service: "Service", name: str) -> Session:
    if name not in service.sessions:
        raise refusal(404, "not_found", f"Session {name} not found.")
    return service.sessions[name]


def _trainer(service: "Service", session: Session) -> Trainer:
    return service.models[session.id].trainer


def _status(service: "Service", session: Session) -> str:
    return session.finished or ("running" if service.is_live(session) else "failed")


def _checkpoint(service: "Service", session: str, name: str, kind: str) -> Checkpoint:
    path = f"loom://{session}/{kind}/{name}"
    if path not in service.checkpoints:
        raise refusal(404, "not_found", f"Checkpoint {path} not found.")
    return service.checkpoints[path]


def _demand_free(service: "Service", path: str, name: str) -> None:
    if not NAME.fullmatch(name):
        raise refusal(422, "invalid_request", f"The name {name!r} is not allowed.")
    if path in service.checkpoints:  # unverified: what the service does under a name that it has
        raise refusal(409, "conflict", f"Checkpoint {path} already exists.")


S = f"{PROJECT}/fine_tuning/sessions"
ROUTES = [
    Route(name, name.split()[0], re.compile(re.sub(r"\{(\w+)\}", r"(?P<\1>[^/]+)", path)), handler)
    for name, path, handler in (
        ("POST sessions", S, create),
        ("GET sessions", S, listed),
        ("GET session", S + "/{id}", shown),
        ("DELETE session", S + "/{id}", delete),
        ("POST heartbeat", S + "/{id}/heartbeat", heartbeat),
        ("POST complete", S + "/{id}/complete", complete),
        ("POST forward", S + "/{id}/forward", forward),
        ("POST forward_backward", S + "/{id}/forward_backward", forward_backward),
        ("POST optim_step", S + "/{id}/optim_step", optim_step),
        ("POST checkpoint", S + "/{id}/checkpoint", checkpoint),
        ("POST checkpoint_sample", S + "/{id}/checkpoint_sample", checkpoint_sample),
        ("POST sample", S + "/{id}/sample", sample),
        ("GET checkpoints", S + "/{id}/checkpoints", checkpoints),
        ("GET checkpoint", S + "/{id}/checkpoints/{name}", one_checkpoint),
        ("GET request", S + "/{id}/request/{name}", look),
        ("GET token", "/msi/token", identity.token),
    )
]
