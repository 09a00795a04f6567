"""An emulated service of training primitives: its state, the worker that trains, faults, and the HTTP server around it.

A service names its routes, and says who may come in; what a request does is in the handlers of its own package.
"""

import itertools
import queue
import tempfile
import threading
import time
import traceback
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from tests.emulator.faults import Fault, Faults
from tests.emulator.messages import Answer, Refusal, Reply, Request, match
from tests.emulator.primitives.records import Checkpoint, Future, Model, Sampler, Session
from tests.emulator.primitives.seeing import SeeingTrainer, sees
from tests.emulator.primitives.trainer import Trainer
from tests.emulator.server import Server


class Late(NamedTuple):
    """A request whose client has hung up, carried out when the next one for a certain operation comes."""

    before: str
    carry_out: Callable[[], Answer]


class Primitives(ABC):
    """Training primitives over HTTP: `with Service({"ORG/NAME": folder}) as service: …`."""

    def __init__(self, models: Mapping[str, Path], port: int = 0) -> None:
        self.bases, self._port = models, port
        self.dedupes = True
        """Whether a request with a known sequence number is answered as the first one was, instead of done again."""
        self.session_seconds = 300.0
        """How long a session lives without a heartbeat (unverified; SkyRL's own default)."""
        self.noise = 0.0
        """The spread of what is added to log-probabilities, as in an engine whose sums depend on the batch."""
        self.dtype = "float32"
        """What models are computed in; as float64 only the sessions' wire carries it."""
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
        self._late: list[Late] = []
        self._numbers = itertools.count(1)
        self._queue: queue.SimpleQueue[Future | None] = queue.SimpleQueue()

    @property
    @abstractmethod
    def routes(self) -> Sequence[Any]:
        """The operations: name, method, pattern and handler of each."""

    @abstractmethod
    def admit(self, route: Any, request: Request) -> None:
        """Refuse a request whose key or token does not open an operation."""

    def __enter__(self) -> Self:
        self.start()
        self.server = Server(self, self._port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.stop()
        self.stop()

    def start(self) -> None:
        """Begin to work; requests come from a server of one's own, or from another one."""
        self._folder = tempfile.TemporaryDirectory(prefix="primitives-")
        self.folder = Path(self._folder.name)
        self._worker = threading.Thread(target=self._work)
        self._worker.start()

    def stop(self) -> None:
        """End the worker, once it has done what it was given."""
        self._queue.put(None)
        self._worker.join()
        self._folder.cleanup()

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.server.server_port}"

    def inject(self, fault: Fault) -> None:
        """Arm a fault; it strikes after those armed before it for the same requests."""
        names = [route.name for route in self.routes]
        if fault.on not in names:
            raise ValueError(f"Fault: got on={fault.on!r}; allowed: {', '.join(names)}.")
        with self.lock:
            self.faults.arm(fault)

    def disarm(self) -> bool:
        """Forget the faults that are armed, and late requests; return whether a fault was left that has not struck."""
        with self.lock:
            left, self.faults, self._late = self.faults.left(), Faults(), []
        return left

    @property
    def live(self) -> list[str]:
        """The sessions that are not over."""
        with self.lock:
            return [each.id for each in self.sessions.values() if self.is_live(each)]

    def is_live(self, session: Session) -> bool:
        """Say whether a session is not over."""
        return session.finished is None and time.time() - session.beat_at < self.session_seconds

    def steps(self, model: str) -> int:
        """Return the optimizer steps that a model has had, those of the checkpoint that it began from included."""
        return self.models[model].trainer.steps

    def count(self, operation: str) -> int:
        """Return how often an operation was carried out, by all models together."""
        return sum(count for (_, what), count in self.done.items() if what == operation)

    def reply(self, request: Request) -> Reply:
        """Answer one request."""
        found = match(self.routes, request)
        with self.lock:
            self.requests.append(request)
            fault = self.faults.take(found[0].name) if found else None
        if found is None:
            return Reply.of(Refusal(404, f"Not found: {request.method} {request.path}", "not_found").answer)
        if self.delay:
            time.sleep(self.delay)
        self._arrive(found[0].name)
        if fault is not None:
            return self.strike(fault, request, lambda struck: self._answer(struck, *found))
        return Reply.of(self._answer(request, *found))

    def strike(self, fault: Fault, request: Request, answer: Callable[[Request], Answer]) -> Reply:
        """Let a fault strike a request."""
        if fault.kind == "late":
            self._late.append(Late(fault.details["before"], lambda: answer(request)))
        return fault.strike(request, answer)

    def _arrive(self, name: str) -> None:
        """Carry out the late requests that come in before one for this operation."""
        with self.lock:
            arriving = [late for late in self._late if late.before == name]
            self._late = [late for late in self._late if late.before != name]
        for late in arriving:
            late.carry_out()

    def _answer(self, request: Request, route: Any, ids: dict[str, str]) -> Answer:
        try:
            self.admit(route, request)
            answer: Answer = route.handler(self, request, **ids)
        except Refusal as refusal:
            return refusal.answer
        except Exception:
            # Ours, not the client's: the tests see it in `violations`, the client as a broken service.
            self.violations.append(traceback.format_exc())
            return Refusal(500, "The emulator itself failed.", "internal").answer
        return answer

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

    def trainer(self, base: str, rank: int, seed: int, alpha: float | None = None) -> Trainer:
        """Return a new model of a base; refuse one that is not offered."""
        if base not in self.bases:
            raise Refusal(400, f"Model {base} is not supported; supported: {', '.join(self.bases)}.", "invalid_model")
        folder = self.bases[base]
        return (SeeingTrainer if sees(folder) else Trainer)(base, folder, rank, seed, alpha, self.dtype)

    def begin(self, operation: str, model: Model, work: Callable[[], Answer | dict[str, Any]]) -> Future:
        """Queue some work of a model; requests of all models are carried out in the order in which they came."""

        def counted() -> Answer | dict[str, Any]:
            self.done[model.id, operation] += 1
            return work()

        future = Future(f"{model.id}:{next(self._numbers)}", counted)
        self.futures[future.id] = future
        self._queue.put(future)
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
