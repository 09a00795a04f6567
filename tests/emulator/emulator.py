"""The emulator: the service on a loopback port, for the time of a `with` block."""

import traceback
from pathlib import Path
from types import TracebackType

from tests.emulator import deployments, identity, jobs, routes
from tests.emulator.cloud import Cloud
from tests.emulator.contract import Contract
from tests.emulator.faults import Fault
from tests.emulator.messages import Answer, Refusal, Reply, Request, match
from tests.emulator.script import Engine
from tests.emulator.server import Server
from tests.emulator.sessions import SessionsEmulator

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"


class Emulator(Cloud):
    """Microsoft Foundry's fine-tuning service in a rehearsal: `with Emulator() as cloud: …`."""

    def __init__(
        self,
        style: str = "strict",
        speed: float = 1.0,
        clock_offset: float = 0.0,
        engine: Engine | None = None,
        openapi: Path | None = None,
        port: int = 0,
        sessions: SessionsEmulator | None = None,
    ) -> None:
        super().__init__(style, speed, clock_offset, engine)
        self._port, self._sessions = port, sessions
        if sessions is not None:
            sessions.identity = self.identity  # one project, one set of tokens
        self.contract = Contract(self.lax, openapi)

    def __enter__(self) -> "Emulator":
        if self._sessions is not None:
            self._sessions.start()
        self.server = Server(self, self._port)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.server.stop()
        if self._sessions is not None:
            self._sessions.stop()

    @property
    def base(self) -> str:
        """The address of everything: data plane, resource manager, identity."""
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def endpoint(self) -> str:
        """The project's endpoint."""
        return self.base + routes.PROJECT

    @property
    def judge_url(self) -> str:
        """The address of the judge's API."""
        return self.base + "/openai/v1"

    def judge_environment(self) -> dict[str, str]:
        """Return the variables with which a client finds the judge, and the key of the endpoint grader."""
        return {
            "OPENAI_BASE_URL": self.judge_url,
            "OPENAI_API_KEY": self.judge.key,
            "GRADER_KEY": self.judge.grader_key,
        }

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which a client process finds this service, identity included.

        The first names are the runner's, the second ones those that the SDK's sample programs read.
        """
        return {
            "AZURE_AI_PROJECT_ENDPOINT": self.endpoint,
            "FOUNDRY_PROJECT_ENDPOINT": self.endpoint,
            "MODEL_NAME": "gpt-4.1-mini",
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_AI_PROJECTS_AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": "rehearsal",
            "AZURE_AI_PROJECTS_AZURE_RESOURCE_GROUP": "rehearsal",
            "AZURE_AI_ACCOUNT": "rehearsal",
            "AZURE_AI_PROJECTS_AZURE_AOAI_ACCOUNT": "rehearsal",
            "AZURE_RESOURCE_MANAGER_ENDPOINT": self.base,
            "IDENTITY_ENDPOINT": self.base + "/msi/token",
            "IDENTITY_HEADER": identity.HEADER,
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        }

    def inject(self, fault: Fault) -> None:
        """Arm a fault; it strikes after those armed before it for the same requests."""
        if fault.on not in routes.NAMES:
            raise ValueError(f"Fault: got on={fault.on!r}; allowed: {', '.join(routes.NAMES)}.")
        with self.lock:
            self.faults.arm(fault)

    def reply(self, request: Request) -> Reply:
        """Answer one request; requests are answered one at a time, so that the state is always whole.

        Those for fine-tuning sessions wait for none of the others: they have a worker of their own.
        """
        if self._sessions is not None and request.path.startswith(f"{routes.PROJECT}/fine_tuning/sessions"):
            return self._sessions.reply(request)
        found = match(routes.ROUTES, request)
        with self.lock:
            self.requests.append(request)
            if found is None:
                return Reply.of(Refusal(404, f"Resource not found: {request.method} {request.path}", "404").answer)
            route, ids = found
            fault = self.faults.take(route.name)
            if fault is not None:
                return fault.strike(request, lambda struck: self._answer(struck, route, ids))
            return Reply.of(self._answer(request, route, ids))

    def _answer(self, request: Request, route: routes.Route, ids: dict[str, str]) -> Answer:
        try:
            jobs.settle(self)
            deployments.settle(self)
            if route.area is not None:
                identity.check(self, request, route.area)
            answer = route.handler(self, request, **ids)
        except Refusal as refusal:
            answer = refusal.answer
        except Exception:
            # Ours, not the client's: the tests see it in `violations`, the client as a broken service.
            self.violations.append(traceback.format_exc())
            return Refusal(500, "The emulator itself failed.", "InternalServerError").answer
        self.violations.extend(self.contract.violations(route.name, request, answer))
        return answer
