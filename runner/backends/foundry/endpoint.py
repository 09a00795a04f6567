"""Where the service is: from YAML, the environment or `.env`; what is missing is named, with where to find it."""

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from runner.errors import AccessError, RequestError

if TYPE_CHECKING:
    from runner.backends.foundry.keys import Azure, Foundry, Project
    from runner.record.journal import RunState

RESOURCE_MANAGER = "https://management.azure.com"

VARIABLES: dict[str, tuple[tuple[str, ...], str]] = {
    "endpoint": (
        ("AZURE_AI_PROJECT_ENDPOINT", "FOUNDRY_PROJECT_ENDPOINT"),
        "the project's overview page in the Foundry portal shows it, "
        "https://RESOURCE.services.ai.azure.com/api/projects/PROJECT",
    ),
    "subscription": (
        ("AZURE_SUBSCRIPTION_ID", "AZURE_AI_PROJECTS_AZURE_SUBSCRIPTION_ID"),
        "`az account show --query id` prints it",
    ),
    "resource_group": (
        ("AZURE_RESOURCE_GROUP", "AZURE_AI_PROJECTS_AZURE_RESOURCE_GROUP"),
        "the Azure portal shows it on the Foundry resource's page",
    ),
    "account": (
        ("AZURE_AI_ACCOUNT", "AZURE_AI_PROJECTS_AZURE_AOAI_ACCOUNT"),
        "it is the Foundry resource's name, RESOURCE in the endpoint",
    ),
}
"""By key under `backend.azure`: the variables that give it (the second names are those of Microsoft's samples)."""


@dataclass(frozen=True)
class ControlPlane:
    """Where deployments are made; `url` is Azure's resource manager."""

    subscription: str
    resource_group: str
    account: str
    url: str

    @property
    def name(self) -> str:
        """The resource in full: subscription, group and account."""
        return f"{self.subscription}/{self.resource_group}/{self.account}"


def find_endpoint(azure: "Project", environment: Mapping[str, str] = os.environ) -> str:
    """Return the project's endpoint, without a slash at its end.

    Raises `AccessError` where it is not set or no URL of a project.
    """
    found = _value(azure, "endpoint", environment).rstrip("/")
    try:
        where = urlsplit(found)
    except ValueError:  # a bracket too many
        where = urlsplit("")
    # An address goes into journals, reports and MLflow; it is refused without being printed.
    if where.username or where.query or where.fragment:
        raise AccessError(
            "backend.azure.endpoint: holds more than an address (a user, a password, ?… or #…); allowed: "
            "https://RESOURCE.services.ai.azure.com/api/projects/PROJECT; a secret has no place in it."
        )
    # Plain http is for the emulator on this machine only: a token would be readable on the way.
    local = where.hostname in ("127.0.0.1", "localhost")
    if where.scheme != ("http" if local and where.scheme == "http" else "https") or "/api/projects/" not in where.path:
        raise AccessError(
            f"backend.azure.endpoint: got {found}; allowed: "
            "https://RESOURCE.services.ai.azure.com/api/projects/PROJECT; copy it from the project's overview page."
        )
    return found


def control_plane(azure: "Azure", environment: Mapping[str, str] = os.environ) -> ControlPlane:
    """Return where deployments are made; the account is read off the endpoint if it is not set.

    Raises `AccessError` for what is not set.
    """
    # Also works without AZURE_AI_ACCOUNT, as the host's first label is the resource's name.
    named = re.match(r"https://([\w-]+)\.services\.ai\.azure\.com/", find_endpoint(azure, environment))
    account = find(azure, "account", environment) or (named[1] if named else _value(azure, "account", environment))
    return ControlPlane(
        _value(azure, "subscription", environment),
        _value(azure, "resource_group", environment),
        account,
        environment.get("AZURE_RESOURCE_MANAGER_ENDPOINT", RESOURCE_MANAGER).rstrip("/"),
    )


def _value(azure: "Project", key: str, environment: Mapping[str, str]) -> str:
    found = find(azure, key, environment)
    if not found:
        (name, *_), where = VARIABLES[key]
        raise AccessError(f"{name}: not set; put it into the environment or .env, or set backend.azure.{key}; {where}.")
    return found


def find(azure: "Project", key: str, environment: Mapping[str, str] = os.environ) -> str | None:
    """Return what a key under `backend.azure` is, by itself or by its variables; None where it is not set."""
    given: str | None = getattr(azure, key)
    return given or next((environment[name] for name in VARIABLES[key][0] if environment.get(name)), None)


def demand_way_there(settings: "Foundry") -> None:
    """Raise the error for whatever is missing to reach the service, before anything is made."""
    if find_spec("openai") is None or find_spec("azure") is None:
        raise RequestError("backend: foundry needs packages that are not installed; pip install 'runner[foundry]'.")
    find_endpoint(settings.azure)
    if settings.deploy != "none":
        control_plane(settings.azure)


def stay_where_it_began(settings: "Foundry", state: "RunState") -> None:
    """Raise `RequestError` where a run that was begun at one project is to continue at another."""
    # File and job ids mean nothing at another project.
    begun = state.results.get("upload", {}).get("endpoint")
    now = find(settings.azure, "endpoint")
    if begun and now and begun != now.rstrip("/"):
        raise RequestError(
            f"backend.azure.endpoint: this plan was begun at {begun}, not at {now}; what was uploaded and created is "
            "there; set that endpoint, or move the run's folder away to start over."
        )
