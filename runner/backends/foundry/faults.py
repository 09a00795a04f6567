"""What Azure's SDKs raise, classified as `runner.hosted.faults` does it for OpenAI's; and what to do about it here.

Source: https://learn.microsoft.com/python/api/azure-core/azure.core.exceptions
"""

from azure.core import exceptions as azure

from runner.errors import AccessError, RunnerError
from runner.hosted import faults
from runner.hosted.faults import Fault
from runner.hosted.wording import line

FOREIGN = (*faults.FOREIGN, azure.AzureError, azure.DeserializationError)
"""What the SDKs of OpenAI and Azure raise for a request."""


def classify(error: Exception) -> Fault:
    """Return what an exception of the SDKs means."""
    # azure-identity raises it without a response: nothing has been sent to the service itself then.
    if isinstance(error, azure.ClientAuthenticationError) and error.response is None:
        return Fault("credential", line(str(error)))
    if isinstance(error, azure.HttpResponseError) and error.response is not None:
        words = (error.error.message or error.error.code) if error.error else error.message
        return faults.of_status(error.status_code or 0, str(words), getattr(error.response, "headers", {}))
    if isinstance(error, azure.ServiceRequestError):
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
