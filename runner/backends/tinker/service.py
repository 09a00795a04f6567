"""Tinker as the driver asks it: sessions, models and checkpoints over HTTP, as the package `tinker` 0.38 does it."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import ClassVar

import msgspec

from runner.backends import RemoteJob
from runner.backends.tinker import wire
from runner.backends.tinker.answering import TinkerAnswering
from runner.backends.tinker.api import PROTOBUF, ROOT, Api
from runner.backends.tinker.checkpoints import ROUTES, TinkerCheckpoints
from runner.remote.engine.service import (
    Answer,
    Handle,
    Lost,
    Operation,
    Reason,
    Save,
    Score,
    Service,
    SessionGone,
    Start,
)

PLAN = "runner_plan_id"
"""The label of a session with the plan that it works on."""
PAGE = 100
SDK = "0.38.0"
"""The version of the package `tinker` whose requests these are."""
CLOSE_SECONDS = 30.0
"""The longest that a session's end is asked for; a service that cannot be reached ends it by itself."""


class _Status(msgspec.Struct):
    type: str


class _Session(msgspec.Struct):
    """A session as the service lists it. `status` is null where it is neither finished nor known to run."""

    session_id: str
    created_at: datetime
    status: _Status | None = None
    user_metadata: dict[str, str] | None = None


class _Sessions(msgspec.Struct):
    sessions: list[_Session]
    next_cursor: dict[str, str] | None = None


class _Future(msgspec.Struct):
    request_id: str


class Tinker(Service):
    """The service at one address, with one key."""

    # "Tinker guarantees execution order": a step that is sent with its gradient shares a cycle of about 10 s with it.
    # https://tinker-docs.thinkingmachines.ai/tinker/howto/concurrency_async/
    ordered: ClassVar[bool] = True

    def __init__(self, endpoint: str, key: str, patience: float) -> None:
        self.endpoint = endpoint
        self._api = Api(endpoint, key, patience)
        self.checkpoints = TinkerCheckpoints(self._api)
        self.answering: TinkerAnswering = TinkerAnswering(self._api)

    def open(self, start: Start, labels: Mapping[str, str], began: Callable[[str], None]) -> Handle:
        """Open a session, and a model in it: fresh, or out of a saved state."""
        session = self.open_for_answers(labels)
        began(session)
        # The first model of the session: the same request again is the same model.
        number = {"session_id": session, "model_seq_id": 0, "user_metadata": dict(labels)}
        if start.state:
            body = {**number, "type": "load_weights", "path": start.state, "optimizer": start.optimizer}
            request = self._api.ask("load_weights", body)
        else:
            lora = {**start.lora, "seed": start.seed}
            # Our seed: the adapter's start is part of the plan.
            made = {**number, "type": "create_model", "base_model": start.base_model, "lora_config": lora}
            request = self._api.ask("create_model", {**made, "optimizer_config": {"type": "adamw"}})
        found = self._api.result(str(request["request_id"]))
        return Handle(session, found.model_id)

    def open_for_answers(self, labels: Mapping[str, str], path: str = "", base_model: str = "") -> str:
        """Open a session, which costs nothing by itself, and in which any weights can be asked."""
        body = {"type": "create_session", "tags": [], "user_metadata": dict(labels), "sdk_version": SDK}
        try:
            return str(self._api.post("create_session", body).json()["session_id"])
        except Lost:
            # It may be there; a second one would cost nothing either, but be left behind.
            return next(iter(self.find(labels)), "") or str(self._api.ask("create_session", body)["session_id"])

    def find(self, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the sessions with these labels that are not over."""
        return [each.session_id for each in self._listed(labels) if _state(each) == "active"]

    def alive(self, session: str) -> bool:
        """Send a heartbeat; return whether the session is not over."""
        try:
            self._api.ask("session_heartbeat", {"type": "session_heartbeat", "session_id": session})
        except SessionGone:
            return False
        return True

    def close(self, session: str, reason: Reason) -> None:
        """Finish a session."""
        try:
            self._api.http.ask(
                "POST", f"{ROOT}/sessions/{session}/finish", json={"reason": {"type": reason}}, most=CLOSE_SECONDS
            )
        except SessionGone:
            return

    def post(self, handle: Handle, operation: Operation, number: int) -> str:
        """Send an operation, once, under its number; return the request's id."""
        own = {"model_id": handle.model, "seq_id": number}
        if isinstance(operation, Score):
            content = wire.request(handle.model, operation, number)
            headers = {"Content-Type": PROTOBUF}
            answer = self._api.http.send("POST", f"{ROOT}/forward_backward", content=content, headers=headers)
        elif isinstance(operation, Save):
            route = ROUTES[operation.what]
            body = {**own, "type": route, "path": operation.name}
            if operation.ttl_seconds is not None:
                body["ttl_seconds"] = operation.ttl_seconds
            answer = self._api.post(route, body)
        else:
            adam = operation.adam
            keys = {
                "learning_rate": adam.learning_rate, "beta1": adam.beta1, "beta2": adam.beta2, "eps": adam.eps,
                # 0 switches clipping off: https://tinker-docs.thinkingmachines.ai/training-sampling
                "weight_decay": adam.weight_decay, "grad_clip_norm": adam.max_grad_norm or 0.0,
            }  # fmt: skip
            answer = self._api.post("optim_step", {**own, "type": "optim_step", "adam_params": keys})
        return msgspec.json.decode(answer.content, type=_Future).request_id

    def result(self, request: str, operation: Operation) -> Answer:
        """Wait for what came of a request."""
        if isinstance(operation, Score):
            content = self._api.content(request, PROTOBUF)
            return Answer(logps=wire.logps(content, operation).tobytes())
        found = self._api.result(request)
        return Answer(values=found.metrics or {}, path=found.path)

    def base_model_of(self, path: str) -> str:
        """Return the base model of a sampler's weights."""
        session = self.open_for_answers({})
        try:
            return self.answering.base_model(self.answering.sampler(session, path, ""))
        finally:
            self.close(session, "success")
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection."""
        self._api.http.disconnect()

    def sessions(self) -> Sequence[RemoteJob]:
        """Return all sessions of the key's owner, newest first."""
        return [
            RemoteJob(
                id=each.session_id,
                state=_state(each),
                created_at=each.created_at.timestamp(),
                model="",
                plan_id=(each.user_metadata or {}).get(PLAN, ""),
            )
            for each in self._listed({})
        ]

    def _listed(self, labels: Mapping[str, str]) -> Iterator[_Session]:
        body: dict[str, object] = {"user_metadata": dict(labels), "limit": PAGE}
        while True:
            answer = self._api.http.ask("POST", f"{ROOT}/sessions/search", json=body)
            found = msgspec.json.decode(answer.content, type=_Sessions)
            yield from found.sessions
            if found.next_cursor is None:
                return
            body["cursor"] = found.next_cursor


def _state(session: _Session) -> str:
    return session.status.type if session.status is not None else "over"
