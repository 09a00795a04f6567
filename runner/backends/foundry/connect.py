"""The connection to Foundry: the SDKs of Azure and OpenAI, authenticated by a credential of Azure, and what they raise.

Exceptions are classified as `runner.hosted.faults` does it for OpenAI's, and said with what to do about them here.
Source: https://learn.microsoft.com/python/api/azure-core/azure.core.exceptions
"""

from functools import cached_property
from typing import TYPE_CHECKING, NotRequired, TypedDict

from azure.ai.projects import AIProjectClient
from azure.core import exceptions as azure_core
from azure.mgmt.cognitiveservices import CognitiveServicesManagementClient
from httpx2 import Timeout
from openai import DefaultHttpxClient, OpenAI

from runner.backends.foundry.endpoint import ControlPlane, control_plane, find_endpoint
from runner.backends.foundry.keys import Azure, Foundry
from runner.errors import AccessError, RunnerError
from runner.hosted import faults
from runner.hosted.connection import ANSWER_SECONDS, CONNECT_SECONDS, Connection, refuse_page
from runner.hosted.credentials import credential
from runner.hosted.faults import Fault
from runner.hosted.keys import Polling
from runner.hosted.wording import line

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential
    from azure.mgmt.cognitiveservices.operations import DeploymentsOperations


FOREIGN = (*faults.FOREIGN, azure_core.AzureError, azure_core.DeserializationError)
"""What the SDKs of OpenAI and Azure raise for a request."""


def classify(error: Exception) -> Fault:
    """Return what an exception of the SDKs means."""
    # azure-identity raises it without a response: nothing has been sent to the service itself then.
    if isinstance(error, azure_core.ClientAuthenticationError) and error.response is None:
        return Fault("credential", line(str(error)))
    if isinstance(error, azure_core.HttpResponseError) and error.response is not None:
        words = (error.error.message or error.error.code) if error.error else error.message
        return faults.of_status(error.status_code or 0, str(words), getattr(error.response, "headers", {}))
    if isinstance(error, azure_core.ServiceRequestError):
        return Fault("unreachable", "no connection")
    return faults.classify(error)


def error_for(fault: Fault, what: str, endpoint: str) -> RunnerError:
    """Return the error for the user: what was being done, what came back, what to do."""
    head = f"{what}: {fault.text}"
    match fault.kind:
        case "credential":
            return AccessError(
                f"{what}: no credential works ({fault.text}); log in with `az login`, or set those of a service "
                "principal (AZURE_TENANT_ID, AZURE_CLIENT_ID, …); backend.azure.credential names one way only."
            )
        case "token":
            return AccessError(
                f"{head}; the service does not take our token; log in again (`az login`), to the tenant of {endpoint}."
            )
        case "role":
            return AccessError(
                # A new role can take ten minutes:
                # https://learn.microsoft.com/azure/role-based-access-control/troubleshooting
                f"{head}; the credential lacks a role; it needs Foundry User on the project (once Azure AI User), for "
                "deployments Cognitive Services Contributor on the resource; ask an owner, and allow some minutes."
            )
        case "missing":
            return AccessError(
                f"{head}; the service knows nothing of that name; check it, and the endpoint, {endpoint}: it should "
                "read https://RESOURCE.services.ai.azure.com/api/projects/PROJECT."
            )
        case _:
            return faults.error_for(fault, what, endpoint)


class ManagerOptions(TypedDict):
    """Where a call of the resource manager goes."""

    resource_group_name: str
    account_name: str
    enforce_https: NotRequired[bool]


class Service(Connection):
    """A project of Foundry, reached as a credential allows."""

    foreign = FOREIGN

    def classify(self, error: Exception) -> Fault:
        """Return what an exception of Azure's or OpenAI's SDKs means."""
        return classify(error)

    def error_for(self, fault: Fault, what: str) -> RunnerError:
        """Return the error for the user, with the fix in Azure."""
        return error_for(fault, what, self.endpoint)

    def __init__(self, endpoint: str, azure: Azure, polling: Polling) -> None:
        super().__init__(endpoint, polling)
        self.azure = azure

    @cached_property
    def control_plane(self) -> ControlPlane:
        """Where deployments are made."""
        return control_plane(self.azure)

    @cached_property
    def _credential(self) -> "TokenCredential":
        return credential(self.azure.credential)

    @cached_property
    def openai(self) -> OpenAI:
        """The project's OpenAI client."""
        timeout = Timeout(ANSWER_SECONDS, connect=CONNECT_SECONDS)
        # A hook, as the SDK would parse a proxy's login page as if it were an object with no fields.
        http = DefaultHttpxClient(timeout=timeout, event_hooks={"response": [refuse_page]})
        client = self._project.get_openai_client(max_retries=0, timeout=timeout, http_client=http)
        client.organization = client.project = None  # of OpenAI's own service; they leak in from the environment
        return client

    @cached_property
    def _project(self) -> AIProjectClient:
        return AIProjectClient(endpoint=self.endpoint, credential=self._credential)

    @property
    def deployments(self) -> "DeploymentsOperations":
        """The resource manager's operations on deployments; each call takes `**self.manager_options`."""
        return self._manager.deployments

    @cached_property
    def _manager(self) -> CognitiveServicesManagementClient:
        where = self.control_plane
        return CognitiveServicesManagementClient(
            self._credential,
            where.subscription,
            base_url=where.url,
            credential_scopes=["https://management.azure.com/.default"],
            # As with OpenAI's SDK: what may be repeated is decided in hosted/connection.py alone.
            retry_total=0,
        )

    @property
    def manager_options(self) -> ManagerOptions:
        """What a call of `deployments` needs: a token over plain http is for an emulator on this machine only."""
        where = self.control_plane
        options = ManagerOptions(resource_group_name=where.resource_group, account_name=where.account)
        if where.url.startswith("http://127.0.0.1:"):
            options["enforce_https"] = False
        return options

    def close(self) -> None:
        """Close the connections and forget the credential with its tokens; the next request opens new ones."""
        # Cached properties: taken out of the dict they are made again when next asked for.
        for name in ("openai", "_project", "_manager", "_credential"):
            client = self.__dict__.pop(name, None)
            if client is not None:
                client.close()


def service(settings: Foundry) -> Service:
    """Return the service that a request means; requests that mean the same share one, and its limit of requests."""
    # Trials of a sweep share one service, so that the limit of requests holds for all of them together.
    key = find_endpoint(settings.azure), settings.azure, settings.polling
    return _services.setdefault(key, Service(*key))


def close() -> None:
    """Close the connections of all services; asked again, they open new ones."""
    for each in _services.values():
        each.close()
    _services.clear()


_services: dict[tuple[str, Azure, Polling], Service] = {}
