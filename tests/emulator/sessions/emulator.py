"""The emulator of Foundry's sessions: who may come in, what a request has come to, and what the service refuses."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.emulator import identity
from tests.emulator.faults import Fault
from tests.emulator.messages import Answer, Refusal, Reply, Request
from tests.emulator.primitives.records import Future, Model
from tests.emulator.primitives.service import Primitives
from tests.emulator.routes import PROJECT


class SessionsEmulator(Primitives):
    """Fine-tuning sessions in a rehearsal: `with SessionsEmulator({"ORG/NAME": folder}) as service: …`."""

    def __init__(self, models: Mapping[str, Path], port: int = 0) -> None:
        super().__init__(models, port)
        self.dedupes = False  # a request carries nothing by which it could be known again
        self.identity, self.token_seconds = identity.Tokens(), 3600.0
        self.hold_seconds = 2.0
        """How long a look at a request that is under way is held, so that a client need not wait between two."""
        self.unlisted = 0
        """So many saves to come are answered as if they had been made, and leave nothing."""
        self.reports: Literal["all", "no end", "no logprobs"] = "no end"
        """What a sampler reports of an answer. Unverified: the package types log-probabilities as optional, and says
        nothing of the end.
        """
        self._dropped: dict[str, Any] | None = None

    @property
    def routes(self) -> Sequence[Any]:
        """The operations."""
        from tests.emulator.sessions import routes

        return routes.ROUTES

    @property
    def endpoint(self) -> str:
        """The project's endpoint."""
        return self.url + PROJECT

    def environment(self) -> dict[str, str]:
        """Return the variables with which a client process finds this service, identity included."""
        return {
            "AZURE_AI_PROJECT_ENDPOINT": self.endpoint,
            "IDENTITY_ENDPOINT": self.url + "/msi/token",
            "IDENTITY_HEADER": identity.HEADER,
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        }

    def admit(self, route: Any, request: Request) -> None:
        """Refuse a request without a token for the project, or without what opts in to the preview."""
        if route.name == "GET token":
            return
        identity.check(self, request, "data")
        if request.headers.get("foundry-features") != "FineTuningSessions=V1Preview":
            raise refusal(400, "preview_required", "The header Foundry-Features is missing.")
        if request.query.get("api-version") != "v1":
            raise refusal(400, "api_version", "The api-version is missing or wrong.")

    def strike(self, fault: Fault, request: Request, answer: Callable[[Request], Answer]) -> Reply:
        """Let a fault strike: one that drops the work has the request accepted, and fail later."""
        if fault.kind == "dropped":
            self._dropped = fault.details
        return super().strike(fault, request, answer)

    def begin(self, operation: str, model: Model, work: Callable[[], Answer | dict[str, Any]]) -> Future:
        """Queue some work of a session; time-ordered, as the service does it."""
        model.session.used()
        if self._dropped is not None:
            failure, self._dropped = {"status": "failed", "error": "The work was dropped.", **self._dropped}, None
            future = Future(f"{model.id}:dropped-{len(self.futures)}", lambda: failure)
            self.futures[future.id] = future
            future.answer = Answer(body=failure)
            future.done.set()
            return future
        return super().begin(operation, model, lambda: {"status": "completed", "result": work(), "error": None})

    def look(self, name: str) -> Answer:
        """Return what a request has come to."""
        future = self.futures.get(name)
        if future is None:
            raise refusal(404, "not_found", f"Request {name} not found.")
        if not future.done.wait(self.hold_seconds) or future.answer is None:
            return Answer(body={"status": "pending", "error": None})
        body = future.answer.body
        if isinstance(body, dict) and "status" not in body:  # the emulator's own failure
            return Answer(body={"status": "failed", **body})
        return future.answer


def refusal(status: int, code: str, message: str) -> Refusal:
    """Return a refusal in the form of the service, which is that of FastAPI."""
    found = Refusal(status, message, code)
    found.answer.body = {"detail": {"reason": code, "error_code": code, "message": message}}
    return found
