"""A deployment of a tuned model: what answers, and what costs by the hour while it exists.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy
"""

from collections.abc import Collection, Generator
from typing import TYPE_CHECKING

from runner.backends import Respondent
from runner.backends.foundry.catalogue import OPENAI, catalogue
from runner.backends.foundry.connect import Service, service
from runner.backends.foundry.keys import Foundry
from runner.errors import ModelError, RequestError, RunnerError, ServiceError
from runner.hosted.connection import Asking, now
from runner.hosted.generate import Deployed
from runner.record.events import Created, Event, Progress, Removed, Wait

if TYPE_CHECKING:
    from azure.mgmt.cognitiveservices.models import Deployment

READY, BROKEN = "Succeeded", {"Failed", "Canceled", "Disabled"}
NOT_THERE = {"ResourceNotFound", "DeploymentNotFound", "NotFound"}


class Deployer:
    """Makes and removes one deployment, by its name."""

    def __init__(self, service: Service, name: str, format: str = OPENAI, key: str = "backend.deployment.name") -> None:
        # The publisher of the base model: a wrong one ends in a 500 without a reason.
        self.service, self.name, self.format, self.key = service, name, format, key

    def ensure(
        self, model: str, sku: str, capacity: int, mine: bool, instead_of: Collection[str] = ()
    ) -> Generator[Event, None, None]:
        """Deploy a model under the name, unless it is, and wait until it is ready.

        `mine` says that we have made what is there: it is changed where SKU or capacity differ, and moved from a model
        of `instead_of`. The service changes a deployment in place, so that callers keep its name.

        Raises `RequestError` where something else has that name.
        """
        existing = yield from self._look()
        moves = existing is not None and _model(existing) != model
        if existing is not None and moves and _model(existing) not in instead_of:
            raise RequestError(
                f"{self.key}: {self.name} is a deployment of {_model(existing)} already; choose another name."
            )
        differs = moves or (existing is not None and _size(existing) != (sku, capacity))
        if existing is None or (differs and mine):
            # Noted before it is sent: a deployment costs while it exists, so that one too many in the list is the
            # lesser evil. The same PUT twice makes one.
            detail = {"model": model, "sku": sku, "account": self.service.control_plane.name}
            yield Created("deployment", self.name, detail)
            yield from self._create(model, sku, capacity)
        yield from self._ready()

    def remove(self) -> Generator[Event, None, None]:
        """Remove the deployment, if it exists, and wait until it is gone."""
        existing = yield from self._look()
        if existing is not None:
            yield from self.service.ask(f"removing the deployment {self.name}", self._delete, awaited=("conflict",))
        while existing is not None:
            yield Wait(min(5.0, self.service.polling.every))
            existing = yield from self._look()
        yield Removed("deployment", self.name)

    def _create(self, model: str, sku: str, capacity: int) -> Generator[Event, None, None]:
        """Send the deployment, and again after a fault that passes."""
        from azure.mgmt.cognitiveservices import models

        wanted = models.Deployment(
            sku=models.Sku(name=sku, capacity=capacity),
            properties=models.DeploymentProperties(
                # Version 1: a tuned model has just one, whatever its base's.
                model=models.DeploymentModel(format=self.format, name=model, version="1")
            ),
        )
        try:
            yield from self.service.create(
                f"deploying {model} as {self.name}", lambda: self._put(wanted), self._look, awaited=("conflict",)
            )
        except RunnerError:
            # Refused, it costs nothing: `clean` need not offer it.
            yield from self._forget()
            raise

    def _forget(self) -> Generator[Event, None, None]:
        if (yield from self._look()) is None:
            yield Removed("deployment", self.name)

    def _ready(self) -> Generator[Event, None, None]:
        while True:
            existing = yield from self._look()
            state = "Accepted" if existing is None else _state(existing)
            if state == READY:
                return
            if state in BROKEN:
                raise ServiceError(
                    f"deployment {self.name}: the service could not make it ({state}); its model is kept; look at "
                    "it in the Foundry portal, remove it with python -m runner.clean, and give the same command again."
                )
            yield Progress("deploy", 0, 0, text=f"{self.name}: {state}")
            yield Wait(min(5.0, self.service.polling.every))

    def _look(self) -> Asking["Deployment | None"]:
        """Return the deployment of that name, or None."""
        return (yield from self.service.ask(f"looking at the deployment {self.name}", self._get))

    def _put(self, wanted: "Deployment") -> None:
        # polling=False: the SDK's own waiting sleeps, and hears no signal; `_ready` looks instead.
        create = self.service.deployments.begin_create_or_update
        create(deployment_name=self.name, deployment=wanted, polling=False, **self.service.manager_options)

    def _delete(self) -> None:
        delete = self.service.deployments.begin_delete
        delete(deployment_name=self.name, polling=False, **self.service.manager_options)

    def _get(self) -> "Deployment | None":
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.service.deployments.get(deployment_name=self.name, **self.service.manager_options)
        except ResourceNotFoundError as error:
            if error.error and error.error.code not in NOT_THERE:
                raise  # the account or the resource group is what is missing
            return None


def name_of(plan_id: str, job: str, step: int | None = None) -> str:
    """Return what the deployment of a plan's model, or of its checkpoint at a step, is called."""
    # The job's id in it: after again=true another model gets another deployment.
    return f"r-{plan_id[:8]}-{job[-8:]}" + ("" if step is None else f"-{step}")


def format_of(settings: Foundry, base: str) -> str:
    """Return the deployment format of a tuned model: what is asked for, else what the table says of its base model."""
    found = catalogue(settings.models).find(base)
    return settings.deployment.format or (found.format if found else OPENAI)


class Stable(Deployer):
    """A deployment that callers use by its name, with the SKU and capacity that a run asks for."""

    def __init__(self, settings: Foundry, name: str, base: str) -> None:
        super().__init__(service(settings), name, format_of(settings, base), "deployment")
        self.wanted = settings.deployment

    def answer_with(self, model: str, instead_of: Collection[str]) -> Generator[Event, None, None]:
        """Deploy a model by this name, in place of another one where that is one of `instead_of`."""
        # What was moved once is ours: somebody else's deployment of the same model is used as it is.
        return self.ensure(model, self.wanted.sku, self.wanted.capacity, bool(instead_of), instead_of)


def find_base(service: Service, model: str) -> Asking[str | None]:
    """Return the name of a deployment of the base model that is ready, if there is one."""
    listed = yield from service.ask(
        "listing deployments", lambda: list(service.deployments.list(**service.manager_options))
    )
    fitting = [
        str(each.name)
        for each in listed
        # Azure names a base model with or without the date of its version (gpt-4.1-mini-2025-04-14).
        if _model(each) in (model, model.partition("-20")[0]) and _state(each) == READY
    ]
    return min(fitting) if fitting else None  # the same one each time, in whatever order they come


def respondent(settings: Foundry, name: str, base: str | None) -> Respondent:
    """Return what answers by a deployment, or by one of a base model: the one that the settings name, or any.

    Raises `ModelError` where no deployment of the base model exists.
    """
    there, wanted = service(settings), settings.deployment.base
    if base is None:
        return Deployed(there, name)
    found = now(find_base(there, base)) if wanted == "auto" else wanted
    if found is None:
        raise ModelError(f"hosted:{base}: no deployment of it exists; deploy it, or set backend.deployment.base.")
    return Deployed(there, found)


def _model(deployment: "Deployment") -> str:
    model = deployment.properties.model if deployment.properties else None
    return str(model.name) if model else ""


def _state(deployment: "Deployment") -> str:
    return str(deployment.properties.provisioning_state) if deployment.properties else ""


def _size(deployment: "Deployment") -> tuple[str, int | None] | None:
    return (deployment.sku.name, deployment.sku.capacity) if deployment.sku else None
