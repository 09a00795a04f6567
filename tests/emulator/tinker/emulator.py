"""The emulator of the Tinker API: routes, faults, the worker that trains, and the HTTP server around them."""

import hashlib
import itertools
import queue
import re
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.emulator.faults import Fault, Faults
from tests.emulator.messages import Answer, Refusal, Reply, Request, match
from tests.emulator.server import Server
from tests.emulator.tinker.records import Checkpoint, Future, Model, Sampler, Session
from tests.emulator.tinker.trainer import Trainer

KEY = "tml-secret-token-of-the-emulator"
HOLD_SECONDS = 10.0
"""How long a look at a request that is under way is held before it is answered "try again"."""


class TinkerEmulator:
    """The Tinker API in a rehearsal: `with TinkerEmulator({"ORG/NAME": folder}) as service: …`."""

    def __init__(self, models: Mapping[str, Path], port: int = 0) -> None:
        self.bases, self._port = models, port
        self.dedupes = True
        """Whether a request with a known sequence number is answered as the first one was, instead of done again."""
        self.session_seconds = 300.0
        """How long a session lives without a heartbeat (unverified; SkyRL's own default)."""
        self.noise = 0.0
        """The spread of what is added to log-probabilities, as in an engine whose sums depend on the batch."""
        self.delay = 0.0
        """Seconds that each request takes on its way."""
        self.lock, self.faults = threading.RLock(), Faults()
        self.sessions: dict[str, Session] = {}
        self.models: dict[str, Model] = {}
        self.samplers: dict[str, Sampler] = {}
        self.checkpoints: dict[str, Checkpoint] = {}
        self.futures: dict[str, Future] = {}
        self.requests: list[Request] = []
        self.done: Counter[tuple[str, str]] = Counter()
        """How often each operation was carried out, by the model's id and the route's last word."""
        self.work_seconds = 0.0
        self.violations: list[str] = []
        self._numbers = itertools.count(1)
        self._queue: queue.SimpleQueue[Future | None] = queue.SimpleQueue()

    def __enter__(self) -> "TinkerEmulator":
        self._folder = tempfile.TemporaryDirectory(prefix="tinker-")
        self.folder = Path(self._folder.name)
        self._worker = threading.Thread(target=self._work)
        self._worker.start()
        self.server = Server(self, self._port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.stop()
        self._queue.put(None)
        self._worker.join()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def environment(self) -> dict[str, str]:
        """Return the variables with which a client process finds this service."""
        return {"TINKER_BASE_URL": self.url, "TINKER_API_KEY": KEY}

    def inject(self, fault: Fault) -> None:
        """Arm a fault; it strikes after those armed before it for the same requests."""
        from tests.emulator.tinker import routes

        if fault.on not in routes.NAMES:
            raise ValueError(f"Fault: got on={fault.on!r}; allowed: {', '.join(routes.NAMES)}.")
        with self.lock:
            self.faults.arm(fault)

    def disarm(self) -> bool:
        """Forget the faults that are armed; return whether there was one that has not struck."""
        with self.lock:
            left, self.faults = self.faults.left(), Faults()
        return left

    @property
    def live(self) -> list[str]:
        """The sessions that are not over."""
        with self.lock:
            return [each.id for each in self.sessions.values() if self.is_live(each)]

    def steps(self, model: str) -> int:
        """Return the optimizer steps that a model has had, those of the checkpoint that it began from included."""
        return self.models[model].trainer.steps

    def reply(self, request: Request) -> Reply:
        """Answer one request."""
        from tests.emulator.tinker import routes

        found = match(routes.ROUTES, request)
        with self.lock:
            self.requests.append(request)
            fault = self.faults.take(found[0].name) if found else None
        if found is None:
            return Reply.of(Refusal(404, f"Not found: {request.method} {request.path}", "not_found").answer)
        if self.delay:
            time.sleep(self.delay)
        if fault is not None:
            return fault.strike(request, lambda struck: self._answer(struck, *found))
        return Reply.of(self._answer(request, *found))

    def _answer(self, request: Request, route: Any, ids: dict[str, str]) -> Answer:
        try:
            if route.keyed and request.headers.get("x-api-key") != KEY:
                raise Refusal(401, "Invalid API key.", "unauthorized")
            answer: Answer = route.handler(self, request, **ids)
        except Refusal as refusal:
            return refusal.answer
        except Exception:
            # Ours, not the client's: the tests see it in `violations`, the client as a broken service.
            self.violations.append(traceback.format_exc())
            return Refusal(500, "The emulator itself failed.", "internal").answer
        return answer

    def is_live(self, session: Session) -> bool:
        """Say whether a session is not over."""
        return session.finished is None and time.time() - session.beat_at < self.session_seconds

    def session(self, name: str) -> Session:
        """Return a session that is not over; refuse any other."""
        found = self.sessions.get(name)
        if found is None:
            raise Refusal(404, f"Session {name} not found.", "not_found")
        if not self.is_live(found):
            raise Refusal(410, f"Session {name} is over.", "gone")
        return found

    def model(self, name: str) -> Model:
        """Return a model of a session that is not over; refuse any other."""
        found = self.models.get(name)
        if found is None:
            raise Refusal(404, f"Model {name} not found.", "not_found")
        self.session(found.session.id)
        return found

    def add_model(self, session: Session, number: int, trainer: Trainer, metadata: dict[str, str]) -> Model:
        """Add a model to a session."""
        while f"{session.id}:train:{number}" in self.models:
            number += 1  # without deduplication the same request makes a further one
        found = Model(f"{session.id}:train:{number}", session, trainer, metadata)
        self.models[found.id] = found
        session.models.append(found.id)
        return found

    def begin(self, operation: str, model: Model, work: Callable[[], Answer | dict[str, Any]]) -> Future:
        """Queue some work of a model; requests of all models are carried out in the order in which they came."""

        def counted() -> Answer | dict[str, Any]:
            self.done[model.id, operation] += 1
            return work()

        future = Future(f"{model.id}:{next(self._numbers)}", counted)
        self.futures[future.id] = future
        self._queue.put(future)
        return future

    def once(self, model: Model, seq: int, body: bytes, begin: Callable[[], Future]) -> Future:
        """Return the request with a sequence number: the one that is known, with deduplication, else a new one."""
        digest = hashlib.sha256(body).hexdigest()
        known = model.seen.get(seq)
        if known is not None and self.dedupes:
            if known[0] != digest:
                raise Refusal(409, f"Request {seq} of {model.id} was another one.", "conflict")
            return self.futures[known[1]]
        future = begin()
        model.seen[seq] = digest, future.id
        return future

    def _work(self) -> None:
        while (future := self._queue.get()) is not None:
            began = time.perf_counter()
            try:
                found = future.work()
                future.answer = found if isinstance(found, Answer) else Answer(body=found)
            except Exception as error:
                self.violations.append(traceback.format_exc())
                future.answer = Answer(body={"error": str(error), "category": "server"})
            self.work_seconds += time.perf_counter() - began
            future.done.set()

    def look(self, name: str) -> Answer:
        """Return the answer of a request, once it is there."""
        future = self.futures.get(name)
        if future is None:
            raise Refusal(410, f"Request {name} is gone.", "gone")
        if not future.done.wait(HOLD_SECONDS) or future.answer is None:
            return Answer(body={"type": "try_again", "request_id": name, "queue_state": "active"})
        return future.answer

    def checkpoint(self, path: str) -> Checkpoint:
        """Return a checkpoint by its path; refuse where there is none."""
        if path not in self.checkpoints:
            raise Refusal(404, f"Checkpoint {path} not found.", "not_found")
        return self.checkpoints[path]

    def demand_free(self, path: str, overwrite: bool) -> None:
        """Refuse a checkpoint whose name is taken."""
        if path in self.checkpoints and not overwrite:
            raise Refusal(409, f"Checkpoint {path} already exists.", "conflict")

    def trainer(self, base: str, rank: int, seed: int) -> Trainer:
        """Return a new model of a base; refuse one that is not offered, or a rank that is not."""
        if base not in self.bases:
            raise Refusal(400, f"Model {base} is not supported; supported: {', '.join(self.bases)}.", "invalid_model")
        # A power of two, as the vendor's documentation says.
        if not re.fullmatch("10*", f"{rank:b}"):
            raise Refusal(400, f"rank {rank} is not a power of two.", "invalid_rank")
        return Trainer(base, self.bases[base], rank, seed)
