"""The emulator: the service on a loopback port, for the time of a `with` block."""

import traceback
from types import TracebackType

from tests.emulator import deployments, identity, jobs, routes
from tests.emulator.cloud import Cloud
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.server import Reply, Server

SUBSCRIPTION = "00000000-1111-2222-3333-444444444444"


class Emulator(Cloud):
    """Microsoft Foundry's fine-tuning service in a rehearsal: `with Emulator() as cloud: …`."""

    server: Server

    def __enter__(self) -> "Emulator":
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.stop()

    def start(self, port: int = 0) -> "Emulator":
        """Begin to serve, on a free port unless one is given."""
        self.server = Server(self, port)
        return self

    def stop(self) -> None:
        """End serving."""
        self.server.stop()
        self.server.server_close()

    @property
    def base(self) -> str:
        """The address of everything: data plane, resource manager, identity."""
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def endpoint(self) -> str:
        """The project's endpoint."""
        return self.base + routes.PROJECT

    def environment(self) -> dict[str, str]:
        """Return the environment variables with which a client process finds this service, identity included."""
        return {
            "AZURE_AI_PROJECT_ENDPOINT": self.endpoint,
            "MODEL_NAME": "gpt-4.1-mini",
            "AZURE_SUBSCRIPTION_ID": SUBSCRIPTION,
            "AZURE_RESOURCE_GROUP": "rehearsal",
            "AZURE_AI_ACCOUNT": "rehearsal",
            "AZURE_RESOURCE_MANAGER_ENDPOINT": self.base,
            "IDENTITY_ENDPOINT": self.base + "/msi/token",
            "IDENTITY_HEADER": identity.HEADER,
            "AZURE_TOKEN_CREDENTIALS": "ManagedIdentityCredential",
        }

    def reply(self, request: Request) -> Reply:
        """Answer one request; requests are answered one at a time, so that the state is always whole."""
        with self.lock:
            self.requests.append(request)
            answer = self._answer(request)
        return Reply(answer.status, answer.body, answer.headers)

    def _answer(self, request: Request) -> Answer:
        found = routes.find(request.method, request.path)
        if found is None:
            return Refusal(404, f"Resource not found: {request.method} {request.path}", "404").answer
        route, ids = found
        try:
            jobs.settle(self)
            deployments.settle(self)
            if route.area is not None:
                identity.check(self, request, route.area)
            return route.handler(self, request, **ids)
        except Refusal as refusal:
            return refusal.answer
        except Exception:
            # Ours, not the client's: the tests see it in `violations`, the client as a broken service.
            self.violations.append(traceback.format_exc())
            return Refusal(500, "The emulator itself failed.", "InternalServerError").answer
