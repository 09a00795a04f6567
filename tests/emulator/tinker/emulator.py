"""The emulator of the Tinker API: what its sessions, models and checkpoints are known by, and who may come in."""

import hashlib
import re
from collections.abc import Callable, Sequence
from typing import Any

from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.primitives.records import Checkpoint, Future, Model, Session
from tests.emulator.primitives.service import Primitives
from tests.emulator.primitives.trainer import Trainer

KEY = "tml-secret-token-of-the-emulator"
HOLD_SECONDS = 10.0
"""How long a look at a request that is under way is held before it is answered "try again"."""


class TinkerEmulator(Primitives):
    """The Tinker API in a rehearsal: `with TinkerEmulator({"ORG/NAME": folder}) as service: …`."""

    @property
    def routes(self) -> Sequence[Any]:
        """The operations."""
        from tests.emulator.tinker import routes

        return routes.ROUTES

    def admit(self, route: Any, request: Request) -> None:
        """Refuse a request without the key."""
        if route.keyed and request.headers.get("x-api-key") != KEY:
            raise Refusal(401, "Invalid API key.", "unauthorized")

    def environment(self) -> dict[str, str]:
        """Return the variables with which a client process finds this service."""
        return {"TINKER_BASE_URL": self.url, "TINKER_API_KEY": KEY}

    def add_model(self, session: Session, number: int, trainer: Trainer, metadata: dict[str, str]) -> Model:
        """Add a model to a session."""
        while f"{session.id}:train:{number}" in self.models:
            number += 1  # without deduplication the same request makes a further one
        found = Model(f"{session.id}:train:{number}", session, trainer, metadata)
        self.models[found.id] = found
        session.models.append(found.id)
        return found

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

    def trainer(self, base: str, rank: int, seed: int, alpha: float | None = None) -> Trainer:
        """Return a new model of a base; refuse a rank that is no power of two, as the vendor's documentation says."""
        if base in self.bases and not re.fullmatch("10*", f"{rank:b}"):
            raise Refusal(400, f"rank {rank} is not a power of two.", "invalid_rank")
        return super().trainer(base, rank, seed, alpha)
