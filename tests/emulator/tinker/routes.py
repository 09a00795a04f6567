"""Which request is which operation, and what each does. Source: `resources/` of the package `tinker` 0.38.0."""

import re
import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from runner.training.engine import Adam
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.primitives.records import Model, Session, accepted, stamp
from tests.emulator.primitives.trainer import Lesson, Logps
from tests.emulator.tinker import checkpoints, sampling, wire

if TYPE_CHECKING:
    from tests.emulator.tinker.emulator import TinkerEmulator as Service


class Route(NamedTuple):
    """An operation: its name for faults, who answers, and whether it asks for the key."""

    name: str
    method: str
    pattern: re.Pattern[str]
    handler: Callable[..., Answer]
    keyed: bool = True


def client(service: "Service", request: Request) -> Answer:
    """Answer a question for the client's configuration: all flags as they are by default."""
    return Answer(body={})


def telemetry(service: "Service", request: Request) -> Answer:
    """Take what the package reports of itself."""
    return Answer(body={"status": "accepted"})


def create_session(service: "Service", request: Request) -> Answer:
    """Make a session."""
    body = request.json()
    with service.lock:
        found = Session(f"sess-{secrets.token_hex(4)}", body.get("user_metadata") or {})
        service.sessions[found.id] = found
    return Answer(body={"type": "create_session", "session_id": found.id})


def heartbeat(service: "Service", request: Request) -> Answer:
    """Note that a session's client is alive."""
    with service.lock:
        session = service.session(request.json()["session_id"])
        session.beat_at = request.time
    return Answer(body={"type": "session_heartbeat"})


def finish(service: "Service", request: Request, id: str) -> Answer:
    """End a session: its models are gone, its checkpoints stay."""
    with service.lock:
        session = service.sessions.get(id)
        if session is None:
            raise Refusal(404, f"Session {id} not found.", "not_found")
        session.finished = session.finished or request.json()["reason"]["type"]
    return Answer()


def get_session(service: "Service", request: Request, id: str) -> Answer:
    """Show a session."""
    session = service.sessions.get(id)
    if session is None:
        raise Refusal(404, f"Session {id} not found.", "not_found")
    return Answer(
        body={
            "training_run_ids": session.models,
            "sampler_ids": session.samplers,
            "user_metadata": session.metadata,
        }
    )


def search_sessions(service: "Service", request: Request) -> Answer:
    """List sessions, newest first, by their metadata."""
    body = request.json()
    wanted = (body.get("user_metadata") or {}).items()
    found = [each for each in service.sessions.values() if wanted <= each.metadata.items()]
    found.sort(key=lambda each: (each.created_at, each.id), reverse=True)
    after = body.get("cursor")
    if after is not None:
        found = found[1 + [each.id for each in found].index(after["last_session_id"]) :]
    page = found[: body.get("limit", 50)]
    cursor = None
    if len(page) < len(found):
        cursor = {"last_created_at": stamp(page[-1].created_at), "last_session_id": page[-1].id}
    return Answer(body={"sessions": [_summary(service, each) for each in page], "next_cursor": cursor})


def _summary(service: "Service", session: Session) -> dict[str, Any]:
    status: dict[str, Any] | None = {"type": "active"} if service.is_live(session) else None
    if session.finished is not None:
        status = {"type": "client_finished", "reason": {"type": session.finished}}
    count = sum(path.startswith(f"tinker://{session.id}:") for path in service.checkpoints)
    return {
        "session_id": session.id, "created_at": stamp(session.created_at), "owner": "us", "project_id": "rehearsal",
        "status": status, "checkpoints_count": count, "user_metadata": session.metadata,
    }  # fmt: skip


def create_model(service: "Service", request: Request) -> Answer:
    """Make a model with a fresh adapter."""
    body = request.json()
    lora = body["lora_config"]
    with service.lock:
        session, number = service.session(body["session_id"]), body["model_seq_id"]
        known = service.models.get(f"{session.id}:train:{number}")
        if known is not None and service.dedupes:
            return accepted(service.begin("create_model", known, lambda: _made(known)))
        # train_unembed is taken and has no effect here: the emulator trains attention and MLP only (unverified).
        trainer = service.trainer(body["base_model"], lora["rank"], lora.get("seed") or 0)
        model = service.add_model(session, number, trainer, body.get("user_metadata") or {})
    return accepted(service.begin("create_model", model, lambda: _made(model)))


def _made(model: Model) -> dict[str, Any]:
    return {"type": "create_model", "model_id": model.id}


def load_weights(service: "Service", request: Request) -> Answer:
    """Make a model out of a checkpoint, with the optimizer's state where that is asked for."""
    body = request.json()
    with service.lock:
        session, number = service.session(body["session_id"]), body["model_seq_id"]
        weights = service.checkpoint(body["path"]).weights
        model = service.models.get(f"{session.id}:train:{number}")
        if model is None or not service.dedupes:
            trainer = service.trainer(weights.base, weights.rank, weights.seed)
            trainer.restore(weights, body["optimizer"])
            model = service.add_model(session, number, trainer, body.get("user_metadata") or {})
        loaded = {"type": "load_weights", "path": body["path"], "model_id": model.id}
    return accepted(service.begin("load_weights", model, lambda: loaded))


def get_info(service: "Service", request: Request) -> Answer:
    """Describe a model."""
    model = service.model(request.json()["model_id"])
    data = {"model_name": model.trainer.base, "tokenizer_id": model.trainer.base, "arch": "emulated"}
    return Answer(
        body={
            "type": "get_info",
            "model_id": model.id,
            "model_data": data,
            "is_lora": True,
            "lora_rank": model.trainer.rank,
            "model_name": model.trainer.base,
        }
    )


def forward_backward(service: "Service", request: Request) -> Answer:
    """Compute log-probabilities, and add up the gradient unless forward_only is set."""
    message = wire.request(request.body)
    lessons = wire.lessons(message)
    with service.lock:
        model = service.model(message.model_id)
        work = model.trainer.forward if message.forward_only else model.trainer.forward_backward
        name = "forward" if message.forward_only else "forward_backward"

        def compute() -> Answer:
            return _scored(service, lessons, work(lessons))

        return accepted(service.once(model, message.seq_id, request.body, lambda: service.begin(name, model, compute)))


def _scored(service: "Service", lessons: list[Lesson], logps: Logps) -> Answer:
    if service.noise:
        spread = np.random.default_rng()
        logps = [(each + spread.normal(0, service.noise, len(each))).astype(np.float32) for each in logps]
    loss = -sum(float(each @ lesson.weights) for each, lesson in zip(logps, lessons, strict=True))
    return wire.logps(logps, {"loss:sum": loss})


def optim_step(service: "Service", request: Request) -> Answer:
    """Take an optimizer step."""
    body = request.json()
    keys = body["adam_params"]
    # Nonpositive values of the norm switch clipping off.
    adam = Adam(
        keys["learning_rate"], keys["weight_decay"], keys["grad_clip_norm"] if keys["grad_clip_norm"] > 0 else None,
        keys["beta1"], keys["beta2"], keys["eps"],
    )  # fmt: skip
    with service.lock:
        model = service.model(body["model_id"])

        def step() -> dict[str, Any]:
            return {"type": "optim_step", "metrics": {"grad_norm": model.trainer.optim_step(adam)}}

        begin = lambda: service.begin("optim_step", model, step)  # noqa: E731
        return accepted(service.once(model, body["seq_id"], request.body, begin))


def retrieve_future(service: "Service", request: Request) -> Answer:
    """Return the answer of a request."""
    return service.look(request.json()["request_id"])


HANDLERS: dict[str, Callable[..., Answer]] = {
    "POST client/config": client,
    "POST client/dynamic_config": client,
    "POST telemetry": telemetry,
    "POST create_session": create_session,
    "POST session_heartbeat": heartbeat,
    "POST sessions/search": search_sessions,
    "POST sessions/{id}/finish": finish,
    "GET sessions/{id}": get_session,
    "POST create_model": create_model,
    "POST load_weights": load_weights,
    "POST get_info": get_info,
    "POST forward_backward": forward_backward,
    "POST optim_step": optim_step,
    "POST save_weights": checkpoints.saving("weights", "save_weights"),
    "POST save_weights_for_sampler": checkpoints.saving("sampler_weights", "save_weights_for_sampler"),
    "POST save_weights_external": checkpoints.saving("external_weights", "save_weights_external"),
    "GET training_runs/{id}/checkpoints": checkpoints.listed,
    "DELETE training_runs/{id}/checkpoints/{checkpoint}": checkpoints.delete,
    "GET training_runs/{id}/checkpoints/{checkpoint}/external_weights_urls": checkpoints.external_urls,
    "POST create_sampling_session": sampling.create,
    "GET samplers/{id}": sampling.get,
    "POST asample": sampling.asample,
    "POST retrieve_future": retrieve_future,
}


def _route(name: str, handler: Callable[..., Answer]) -> Route:
    method, path = name.split()
    # A checkpoint's id has a slash in it: weights/NAME.
    pattern = re.sub(r"\{id\}", "(?P<id>[^/]+)", path).replace("{checkpoint}", "(?P<checkpoint>[^/]+/[^/]+)")
    return Route(name, method, re.compile(f"/api/v1/{pattern}"), handler)


ROUTES = [
    *(_route(name, handler) for name, handler in HANDLERS.items()),
    Route("GET export", "GET", re.compile("/export/(?P<place>[^/]+)/(?P<name>[^/]+)"), checkpoints.export, keyed=False),
]
NAMES = [route.name for route in ROUTES]
