"""Checkpoints copied to another resource, a preview: what is asked is documented, the answers are unverified.

Source: https://learn.microsoft.com/azure/foundry/openai/how-to/fine-tuning#copy-a-model-preview
"""

import re
from typing import Any

from tests.emulator import jobs, shapes
from tests.emulator.cloud import Cloud
from tests.emulator.messages import Answer, Refusal, Request

HEADER = "aoai-copy-ft-checkpoints"
RESOURCE = re.compile(r"/subscriptions/[^/]+/resourceGroups/[^/]+/providers/Microsoft.CognitiveServices/accounts/[^/]+")


def create(cloud: Cloud, request: Request, id: str, checkpoint: str) -> Answer:
    """Begin to copy a checkpoint; it keeps its name there."""
    _demand(cloud, request, id, checkpoint)
    body = request.json()
    if not RESOURCE.fullmatch(str(body.get("destinationResourceId"))) or not body.get("region"):
        raise Refusal(400, "destinationResourceId must be a resource's id, and region is required.", "invalidPayload")
    cloud.copies[checkpoint] = body | {"ready_at": cloud.clock.now() + cloud.deployment_seconds}
    return Answer(201, _described(cloud, checkpoint))


def retrieve(cloud: Cloud, request: Request, id: str, checkpoint: str) -> Answer:
    """Return how far the copy is."""
    _demand(cloud, request, id, checkpoint)
    if checkpoint not in cloud.copies:
        raise Refusal(404, f"There is no copy of {checkpoint}.", "notFound")
    return Answer(body=_described(cloud, checkpoint))


def _demand(cloud: Cloud, request: Request, id: str, checkpoint: str) -> None:
    if request.headers.get(HEADER) != "preview":
        raise Refusal(400, f"The header '{HEADER}: preview' is required.", "invalidPayload")
    names = [each["fine_tuned_model_checkpoint"] for each in shapes.checkpoints(cloud, jobs.find(cloud, id))]
    if checkpoint not in names:
        raise Refusal(404, f"Could not find checkpoint: {checkpoint}", "notFound")


def _described(cloud: Cloud, checkpoint: str) -> dict[str, Any]:
    copy = cloud.copies[checkpoint]
    done = cloud.clock.now() >= copy["ready_at"]
    return {key: copy[key] for key in ("destinationResourceId", "region")} | {
        "status": "Succeeded" if done else "Running"
    }
