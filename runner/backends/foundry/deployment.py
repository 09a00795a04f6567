"""A deployment of a tuned model: what answers, and what costs by the hour while it stands.

Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-deploy
"""

from collections.abc import Generator
from typing import Any

from runner.backends.foundry.connect import Service
from runner.errors import RequestError, RunnerError, ServiceError
from runner.hosted.connection import Asking
from runner.record.events import Created, Event, Progress, Removed, Wait

READY, BROKEN = "Succeeded", {"Failed", "Canceled", "Disabled"}
NOT_THERE = {"ResourceNotFound", "DeploymentNotFound", "NotFound"}


class Deployer:
    """Makes and removes one deployment, by its name."""

    def __init__(self, service: Service, name: str) -> None:
        self.service, self.name = service, name

    def ensure(self, model: str, sku: str, capacity: int, mine: bool) -> Generator[Event, None, None]:
        """Deploy a model under the name, unless it is, and wait until it is ready.

        `mine` says that this run has made what stands there: it is changed where SKU or capacity differ.

        Raises `RequestError` where something else stands under that name.
        """
        standing = yield from self._look()
        if standing is not None and _model(standing) != model:
            raise RequestError(
                f"backend.deployment.name: {self.name} is a deployment of {_model(standing)} already; "
                "choose another name."
            )
        differs = standing is not None and (standing.sku.name, standing.sku.capacity) != (sku, capacity)
        if standing is None or (differs and mine):
            # Noted before it is sent: a deployment costs while it stands, so that one too many in the list is the
            # lesser evil. The same PUT twice makes one.
            detail = {"model": model, "sku": sku, "account": self.service.control_plane.name}
            yield Created("deployment", self.name, detail)
            yield from self._create(model, sku, capacity)
        yield from self._ready()

    def remove(self) -> Generator[Event, None, None]:
        """Remove the deployment, if it stands, and wait until it is gone."""
        standing = yield from self._look()
        if standing is not None:
            yield from self.service.ask(f"removing the deployment {self.name}", self._delete, awaited=("conflict",))
        while standing is not None:
            yield Wait(min(5.0, self.service.polling.every))
            standing = yield from self._look()
        yield Removed("deployment", self.name)

    def _create(self, model: str, sku: str, capacity: int) -> Generator[Event, None, None]:
        """Send the deployment, and again after a fault that passes."""
        from azure.mgmt.cognitiveservices import models

        wanted = models.Deployment(
            sku=models.Sku(name=sku, capacity=capacity),
            properties=models.DeploymentProperties(
                model=models.DeploymentModel(format="OpenAI", name=model, version="1")
            ),
        )
        try:
            yield from self.service.create(
                f"deploying {model} as {self.name}", lambda: self._put(wanted), self._look, awaited=("conflict",)
            )
        except RunnerError:
            yield from self._forget()
            raise

    def _forget(self) -> Generator[Event, None, None]:
        if (yield from self._look()) is None:
            yield Removed("deployment", self.name)

    def _ready(self) -> Generator[Event, None, None]:
        while True:
            standing = yield from self._look()
            state = "Accepted" if standing is None else str(standing.properties.provisioning_state)
            if state == READY:
                return
            if state in BROKEN:
                raise ServiceError(
                    f"deployment {self.name}: the service could not make it ({state}); its model is kept; look at "
                    "it in the Foundry portal, remove it with python -m runner.clean, and give the same command again."
                )
            yield Progress("deploy", 0, 0, text=f"{self.name}: {state}")
            yield Wait(min(5.0, self.service.polling.every))

    def _look(self) -> Asking[Any]:
        """Return the deployment that stands under the name, or None."""
        return (yield from self.service.ask(f"looking at the deployment {self.name}", self._get))

    def _put(self, wanted: Any) -> None:
        create = self.service.deployments.begin_create_or_update
        create(deployment_name=self.name, deployment=wanted, polling=False, **self.service.manager_options)

    def _delete(self) -> None:
        delete = self.service.deployments.begin_delete
        delete(deployment_name=self.name, polling=False, **self.service.manager_options)

    def _get(self) -> Any:
        from azure.core.exceptions import ResourceNotFoundError

        try:
            return self.service.deployments.get(deployment_name=self.name, **self.service.manager_options)
        except ResourceNotFoundError as error:
            if error.error and error.error.code not in NOT_THERE:
                raise  # the account or the resource group is what is missing
            return None


def find_base(service: Service, model: str) -> Asking[str | None]:
    """Return the name of a deployment of the base model that is ready, if there is one."""
    listed = yield from service.ask(
        "listing deployments", lambda: list(service.deployments.list(**service.manager_options))
    )
    fitting = [
        each.name
        for each in listed
        if _model(each) in (model, model.partition("-20")[0]) and str(each.properties.provisioning_state) == READY
    ]
    return min(fitting) if fitting else None


def _model(deployment: Any) -> str:
    return str(deployment.properties.model.name)
