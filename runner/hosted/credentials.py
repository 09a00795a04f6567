"""Azure's credentials: who we are at a hosted service, and at any endpoint that takes tokens of Microsoft Entra ID."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

from runner.errors import AccessError
from runner.hosted.wording import line

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

CredentialName = Literal["default", "cli", "developer_cli", "environment", "managed_identity", "workload_identity"]
# https://learn.microsoft.com/python/api/overview/azure/identity-readme#credential-classes
CLASSES: dict[CredentialName, str] = {
    "default": "DefaultAzureCredential",
    "cli": "AzureCliCredential",
    "developer_cli": "AzureDeveloperCliCredential",
    "environment": "EnvironmentCredential",
    "managed_identity": "ManagedIdentityCredential",
    "workload_identity": "WorkloadIdentityCredential",
}
MODELS_SCOPE = "https://cognitiveservices.azure.com/.default"
"""What a token for deployed models is good for:
https://learn.microsoft.com/azure/ai-foundry/openai/how-to/managed-identity"""

PROJECT_SCOPE = "https://ai.azure.com/.default"
"""What a token for a Foundry project is good for, as its packages ask for it."""


def credential(name: CredentialName) -> "TokenCredential":
    """Return a credential. Raises `ImportError` where the package `azure-identity` is missing."""
    import azure.identity

    logging.getLogger("azure").setLevel(logging.CRITICAL)  # it writes each credential's failure to the terminal
    made: TokenCredential = getattr(azure.identity, CLASSES[name])()
    return made


def token_source(name: CredentialName, place: str, scope: str = MODELS_SCOPE) -> Callable[[], str]:
    """Return a function that returns a valid token, for deployed models by default, which is renewed in time.

    `place` is the key that names the credential. The function raises `AccessError` where no token is given.
    """
    try:
        from azure.core.exceptions import AzureError
        from azure.identity import get_bearer_token_provider

        provider = get_bearer_token_provider(credential(name), scope)
    except ImportError as error:
        raise AccessError(f"{place}: needs the package azure-identity; pip install 'runner[foundry]'.") from error

    def token() -> str:
        try:
            return provider()
        except AzureError as error:
            raise AccessError(
                f"{place}: {name} gives no token ({line(str(error))}); sign in (az login), or choose another."
            ) from error

    return token
