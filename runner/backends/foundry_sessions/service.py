"""Foundry's fine-tuning sessions as the driver asks them. A session is one model; its requests have the service's ids.

Own HTTP: the package's asynchronous client sends a request again whose answer was lost, and its synchronous one hides
the id that leads to a result after a kill. Facts are those of the package `azure-ai-finetuningsessions` 1.0.0b1.
"""

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

import msgspec

from runner.backends import RemoteJob
from runner.backends.foundry_sessions import wire
from runner.backends.foundry_sessions.answering import SessionAnswering
from runner.backends.foundry_sessions.api import Api
from runner.backends.foundry_sessions.checkpoints import SessionCheckpoints, split
from runner.backends.foundry_sessions.directory import OVER, Directory, Lora
from runner.errors import ServiceError
from runner.remote.engine.opening import LABEL
from runner.remote.engine.service import (
    Answer,
    Handle,
    Lost,
    Operation,
    Reason,
    ResultGone,
    Save,
    Service,
    SessionGone,
    Start,
)
from runner.remote.engine.session import PLAN

CLOSE_SECONDS = 30.0
"""The longest that a session's end is asked for."""
ANSWERING_RANK = 8
"""The rank of an adapter that learns nothing: the base model answers."""


class FoundrySessions(Service):
    """The sessions of a project."""

    numbered: ClassVar[bool] = False
    # No page of the service says that it keeps the order of requests that wait.
    ordered: ClassVar[bool] = False
    counts_steps: ClassVar[bool] = True

    def __init__(self, endpoint: str, token: Callable[[], str], patience: float, training_type: str) -> None:
        self.endpoint, self._patience, self._training_type = endpoint, patience, training_type
        self._api = Api(endpoint, token, patience)
        self._directory = Directory(self._api)
        self.checkpoints = SessionCheckpoints(self._api)
        self.answering = SessionAnswering(self._api)

    def label(self, start: Start) -> str:
        """Return what distinguishes a session of ours that the list shows without the labels it was made with."""
        others = [each.session_id for each in self._directory.listed() if each.status not in OVER]
        wanted = {"model": start.base_model, "rank": start.lora["rank"], "seed": start.seed}
        return json.dumps({**wanted, "at": time.time(), "others": others})

    def open(self, start: Start, labels: Mapping[str, str], began: Callable[[str], None]) -> Handle:
        """Open a session with a model: fresh, or out of a checkpoint with its optimizer, and wait until it is ready."""
        body: dict[str, object] = {
            "type": "training", "base_model": start.base_model, "lora_config": {**start.lora, "seed": start.seed},
            "user_metadata": {PLAN: labels.get(PLAN, "")}, "training_type": self._training_type,
        }  # fmt: skip
        if start.state:
            source, name = split(start.state)
            body["from_checkpoint"] = {"source_session_id": source, "checkpoint_id": name}
        accepted = self._created(msgspec.json.encode(body), labels)
        # A name of another kind means the same session, says the package.
        session = f"session_{accepted.session_id.removeprefix('session_').removeprefix('model_')}"
        began(session)
        # Without an id its answer was lost, and the session's own state has to do.
        if accepted.request_id:
            self._api.result(f"{session}/request/{accepted.request_id}", lambda: True)
        self._directory.await_running(session)
        return Handle(session, session)

    def open_for_answers(self, labels: Mapping[str, str], path: str = "", base_model: str = "") -> str:
        """Open a session out of a checkpoint, or with an adapter that has learned nothing."""
        if not path:
            start = Start(base_model, {"rank": ANSWERING_RANK}, 0)
        else:
            model = self._directory.shown(split(path)[0]).model_data
            lora = model.lora_config or Lora(ANSWERING_RANK)
            alpha = {} if lora.alpha is None else {"alpha": lora.alpha}
            start = Start(model.base_model, {"rank": lora.rank, **alpha}, lora.seed or 0, path)
        return self.open(start, {**labels, LABEL: self.label(start)}, lambda session: None).session

    def find(self, labels: Mapping[str, str]) -> Sequence[str]:
        """Return the session that was opened with a label and never answered, if it is certain which one it is."""
        return self._directory.unanswered(**json.loads(labels[LABEL]))

    def alive(self, session: str) -> bool:
        """Send a heartbeat; return whether the session is not over."""
        try:
            # A heartbeat of a session that is over may be answered like any other: nothing says so.
            if self._directory.shown(session).status in OVER:
                return False
            self._api.ask("POST", f"/{session}/heartbeat")
        except SessionGone:
            return False
        return True

    def close(self, session: str, reason: Reason) -> None:
        """Unload a session; its checkpoints stay."""
        # The service has no place for the reason.
        try:
            self._api.ask("POST", f"/{session}/complete", most=CLOSE_SECONDS)
        except SessionGone:
            return

    def post(self, handle: Handle, operation: Operation, number: int) -> str:
        """Send an operation, once; return the request's id, which only the service can give."""
        route, body = wire.request(operation)
        answer = self._api.post(f"/{handle.session}/{route}", body)
        return f"{handle.session}/request/{msgspec.json.decode(answer.content, type=wire.Accepted).request_id}"

    def result(self, request: str, operation: Operation) -> Answer:
        """Wait for what came of a request; a checkpoint counts once it is listed."""
        session = request.partition("/")[0]
        content = self._api.result(request, lambda: self.alive(session))
        if not isinstance(operation, Save):
            return wire.answer(content, operation)
        path = self.checkpoints.find(Handle(session, session), operation)
        if path is None:  # a save in two parts can leave one of them, as Microsoft's cookbook says
            raise ResultGone(f"{operation.name} was saved, and is not listed")
        return Answer(path=path)

    def base_model_of(self, path: str) -> str:
        """Return the base model of a checkpoint."""
        try:
            return self._directory.shown(split(path)[0]).model_data.base_model
        finally:
            self.disconnect()

    def disconnect(self) -> None:
        """Close the connection."""
        self._api.http.disconnect()

    def sessions(self) -> Sequence[RemoteJob]:
        """Return all sessions of the project, by the time of their last request: the list has no other."""
        found = sorted(self._directory.listed(), key=lambda each: each.last_request_time, reverse=True)
        return [
            RemoteJob(each.session_id, each.status, each.last_request_time.timestamp(), each.base_model)
            for each in found
        ]  # fmt: skip

    def _created(self, body: bytes, labels: Mapping[str, str]) -> wire.Accepted:
        """Create a session; one whose creation was not answered is looked for before another is made."""
        began, failures = time.monotonic(), 0
        while True:
            try:
                return msgspec.json.decode(self._api.post("", body).content, type=wire.Accepted)
            except Lost as lost:
                if found := self.find(labels):
                    return wire.Accepted("", found[0])
                if time.monotonic() - began > self._patience:
                    raise ServiceError(
                        f"{self.endpoint}: no session could be opened: {lost}; try again later."
                    ) from lost
            failures += 1
            time.sleep(self._api.http.pause(failures))
