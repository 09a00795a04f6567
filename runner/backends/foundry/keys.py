"""Keys under `backend` with `backend=foundry`."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from msgspec import Meta

from runner.backends.foundry.catalogue import Sku, TrainingType
from runner.hosted.credentials import CredentialName
from runner.hosted.keys import Polling
from runner.request.keys import BackendKeys
from runner.request.types import PositiveInt


@dataclass(frozen=True, kw_only=True)
class Project:
    """Keys under `backend.azure`: where the service is. Never a secret; who we are is the credential's matter."""

    endpoint: str | None = None
    """The project's endpoint; null takes AZURE_AI_PROJECT_ENDPOINT or FOUNDRY_PROJECT_ENDPOINT (environment, .env)."""
    credential: CredentialName = "default"
    """How to prove who we are: `default` is Azure's DefaultAzureCredential, which tries the others in turn."""


@dataclass(frozen=True, kw_only=True)
class Azure(Project):
    """Keys under `backend.azure`: where the service is, and its deployments are made."""

    subscription: str | None = None
    """For deployments: the subscription's id; null takes AZURE_SUBSCRIPTION_ID."""
    resource_group: str | None = None
    """For deployments: the resource group; null takes AZURE_RESOURCE_GROUP."""
    account: str | None = None
    """For deployments: the Foundry resource's name; null takes AZURE_AI_ACCOUNT, else it is read off the endpoint."""


@dataclass(frozen=True, kw_only=True)
class Deployment:
    """Keys under `backend.deployment`: how the tuned model is deployed, with `backend.deploy`."""

    name: str = "auto"
    """What it is called; auto takes the plan id's first digits."""
    sku: Sku = "GlobalStandard"
    """The kind; DeveloperTier has no hourly price and is removed by the service after 24 hours."""
    format: str | None = None
    """The publisher as the resource manager has it; null takes the table's (OpenAI, Meta, Mistral AI, Alibaba, …)."""
    capacity: PositiveInt = 50
    """Thousands of tokens per minute (ProvisionedManaged: units)."""
    base: str | None = "auto"
    """A deployment of the base model that also answers; auto looks for one, null leaves it out."""


@dataclass(frozen=True, kw_only=True)
class Foundry(BackendKeys):
    """Keys under `backend` with `backend=foundry`."""

    name: Literal["foundry"] = "foundry"
    """The backend."""
    training_type: TrainingType = "GlobalStandard"
    """Where the service may train, and at what price: the region, the US data zone, anywhere, anywhere when idle."""
    # 18 characters are Azure's own limit; OpenAI's is 64.
    suffix: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,18}$")] | None = None
    """Put into the tuned model's name: up to 18 letters, digits, - and _; null takes the plan id's first digits."""
    follow: bool = True
    """Stay until the job is done; false leaves once it is created, and `python -m runner.watch` comes back to it."""
    # none by default, as nothing that costs by the hour is made unasked.
    deploy: Literal["none", "keep", "delete_after_eval"] = "none"
    """Deploy the tuned model to answer held-out prompts; a deployment is paid by the hour while it exists."""
    deployment: Deployment = field(default_factory=Deployment)
    """The deployment."""
    azure: Azure = field(default_factory=Azure)
    """Where the service is."""
    polling: Polling = field(default_factory=Polling)
    """How it is asked."""
    validate_grader: bool = False
    """Have the service check `rft.grader` before the upload, and compare some scores with this machine's; a preview."""
    models: str | None = None
    """A YAML file with models and prices, to take instead of the one that comes with the runner."""
