"""Which request is which operation: one line each, in the words that faults use too."""

import re
from collections.abc import Callable
from typing import NamedTuple

from tests.emulator import copies, deployments, files, grading, identity, inference, jobs, judge
from tests.emulator.messages import Answer

PROJECT = "/api/projects/rehearsal"
ACCOUNT = "/subscriptions/{s}/resourceGroups/{g}/providers/Microsoft.CognitiveServices/accounts/{a}"


class Route(NamedTuple):
    """An operation: its name for faults, what a token must open (None: no token asked for), and who answers."""

    name: str
    method: str
    pattern: re.Pattern[str]
    area: str | None
    handler: Callable[..., Answer]


def _route(name: str, method: str, path: str, area: str | None, handler: Callable[..., Answer]) -> Route:
    pattern = re.sub(r"\{(id|checkpoint)\}", r"(?P<\1>[^/]+)", re.sub(r"\{[sga]\}", "[^/]+", path.replace(".", r"\.")))
    return Route(name, method, re.compile(pattern, re.IGNORECASE), area, handler)


DATA: dict[str, Callable[..., Answer]] = {
    "POST /files": files.create,
    "GET /files": files.listed,
    "GET /files/{id}": files.retrieve,
    "DELETE /files/{id}": files.delete,
    "GET /files/{id}/content": files.content,
    "POST /fine_tuning/jobs": jobs.create,
    "GET /fine_tuning/jobs": jobs.listed,
    "GET /fine_tuning/jobs/{id}": jobs.retrieve,
    "GET /fine_tuning/jobs/{id}/events": jobs.events,
    "GET /fine_tuning/jobs/{id}/checkpoints": jobs.checkpoints,
    "POST /fine_tuning/jobs/{id}/checkpoints/{checkpoint}/copy": copies.create,
    "GET /fine_tuning/jobs/{id}/checkpoints/{checkpoint}/copy": copies.retrieve,
    "POST /fine_tuning/jobs/{id}/cancel": jobs.cancel,
    "POST /fine_tuning/jobs/{id}/pause": jobs.pause,
    "POST /fine_tuning/jobs/{id}/resume": jobs.resume,
    "POST /fine_tuning/alpha/graders/validate": grading.validate,
    "POST /fine_tuning/alpha/graders/run": grading.run,
    "POST /responses": inference.responses,
    "POST /chat/completions": inference.chat,
}
MANAGEMENT: dict[str, tuple[str, str, Callable[..., Answer]]] = {
    "PUT deployment": ("PUT", ACCOUNT + "/deployments/{id}", deployments.put),
    "GET deployment": ("GET", ACCOUNT + "/deployments/{id}", deployments.get),
    "DELETE deployment": ("DELETE", ACCOUNT + "/deployments/{id}", deployments.delete),
    "GET deployments": ("GET", ACCOUNT + "/deployments", deployments.listed),
    "GET operation": (
        "GET",
        "/subscriptions/{s}/providers/Microsoft.CognitiveServices/locations/eastus2/operations/{id}",
        deployments.operation,
    ),
}
ROUTES = [
    *(_route(name, name.split()[0], f"{PROJECT}/openai/v1{name.split()[1]}", "data", handler)
      for name, handler in DATA.items()),
    *(_route(name, method, path, "management", handler) for name, (method, path, handler) in MANAGEMENT.items()),
    # Endpoints of their own, with keys of their own: a judge, and a team's endpoint grader.
    _route("POST judge", "POST", "/openai/v1/chat/completions", None, judge.chat),
    _route("POST grade", "POST", "/grade", None, judge.grade),
    _route("GET token", "GET", "/msi/token", None, identity.token),
]  # fmt: skip
NAMES = [route.name for route in ROUTES]
