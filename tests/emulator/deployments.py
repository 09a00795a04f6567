"""The resource manager: deployments of models, made and removed by operations that take their time."""

import secrets
from typing import Any

from tests.emulator import models, orders
from tests.emulator.cloud import Cloud
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.records import Deployment


def put(cloud: Cloud, request: Request, id: str) -> Answer:
    """Create a deployment, or change it; the operation to poll is named in a header."""
    body = request.json()
    model, sku = body.get("properties", {}).get("model", {}), body.get("sku", {})
    base = orders.base_of(cloud, str(model.get("name")))
    if base is None:
        message = f"The model 'Format: {model.get('format')}, Name: {model.get('name')}' does not exist."
        raise Refusal(400, message, "DeploymentModelNotSupported")
    # That helpless is the real service where the publisher is another one's (seen in use).
    if model.get("format") != models.BASES[base].format:
        raise Refusal(500, "An internal error occurred.", "InternalServerError")
    if sku.get("name") not in models.BASES[base].skus:
        allowed = ", ".join(models.BASES[base].skus)
        raise Refusal(400, f"The sku '{sku.get('name')}' is not one of {allowed}.", "InvalidSku")
    known = cloud.deployments.get(id)
    now = cloud.clock.now()
    if known is not None and state(known, now) != "Succeeded":
        raise Refusal(409, f"Another operation on deployment '{id}' is being processed.", "RequestConflict")
    ready = now + cloud.deployment_seconds
    made = Deployment(id, model, sku, known.created_at if known else now, ready, ready + cloud.deployment_lag_seconds)
    made.before = known.model if known else None
    cloud.deployments[id] = made
    return Answer(200 if known else 201, described(request, made, now), _polled(cloud, request, made))


def get(cloud: Cloud, request: Request, id: str) -> Answer:
    """Return a deployment."""
    return Answer(body=described(request, find(cloud, id), cloud.clock.now()))


def listed(cloud: Cloud, request: Request) -> Answer:
    """List the deployments, all on one page."""
    now = cloud.clock.now()
    return Answer(body={"value": [described(request, item, now, item.name) for item in cloud.deployments.values()]})


def delete(cloud: Cloud, request: Request, id: str) -> Answer:
    """Remove a deployment; 204 where there is none."""
    if id not in cloud.deployments:
        return Answer(204)
    item = cloud.deployments[id]
    if item.deleted_at is None:
        item.deleted_at = cloud.clock.now() + cloud.deployment_seconds
    return Answer(202, headers=_polled(cloud, request, item))


def operation(cloud: Cloud, request: Request, id: str) -> Answer:
    """Return how far an operation is."""
    if id not in cloud.operations:
        raise Refusal(404, f"The operation '{id}' was not found.", "OperationNotFound")
    item, now = cloud.operations[id], cloud.clock.now()
    done = now >= (item.deleted_at if item.deleted_at is not None else item.ready_at)
    return Answer(body={"id": request.path, "name": id, "status": "Succeeded" if done else "InProgress"})


def settle(cloud: Cloud) -> None:
    """Take away the deployments whose removal is complete."""
    now = cloud.clock.now()
    for name, item in list(cloud.deployments.items()):
        if item.deleted_at is not None and now >= item.deleted_at:
            del cloud.deployments[name]


def state(item: Deployment, now: float) -> str:
    """Return the state that a deployment is in."""
    if item.deleted_at is not None:
        return "Deleting"
    return "Succeeded" if now >= item.ready_at else "Creating"


def described(request: Request, item: Deployment, now: float, name: str = "") -> dict[str, Any]:
    """Return a deployment as the resource manager shows it; `name` completes the id in a list."""
    return {
        "id": request.path + (f"/{name}" if name else ""),
        "type": "Microsoft.CognitiveServices/accounts/deployments",
        "name": item.name,
        "sku": item.sku,
        "properties": {"model": item.model, "provisioningState": state(item, now)},
        "etag": f'"{int(item.created_at)}"',
    }


def find(cloud: Cloud, id: str) -> Deployment:
    """Return a deployment; refuse the request where there is none."""
    if id not in cloud.deployments:
        raise Refusal(404, f"The deployment '{id}' was not found.", "ResourceNotFound")
    return cloud.deployments[id]


def _polled(cloud: Cloud, request: Request, item: Deployment) -> dict[str, str]:
    id = secrets.token_hex(8)
    cloud.operations[id] = item
    subscription = request.path.split("/")[2]
    where = f"/subscriptions/{subscription}/providers/Microsoft.CognitiveServices/locations/eastus2/operations/{id}"
    return {"Azure-AsyncOperation": f"http://{request.headers['host']}{where}?api-version=2025-06-01"}
