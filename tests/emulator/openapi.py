"""Requests and answers held against an OpenAPI description of the service (needs `jsonschema`)."""

import json
from pathlib import Path
from typing import Any

from tests.emulator import files
from tests.emulator.messages import Request

# Where the description names an id otherwise than we do.
PATHS = {"/files/{id}": "/files/{file_id}", "/fine_tuning/jobs/{id}": "/fine_tuning/jobs/{fine_tuning_job_id}"}
# What Azure does not keep to: fields it leaves out, states of its own, -1 for "auto".
LOOSE = {"FineTuningJob": ("status", "hyperparameters", "method"), "OpenAIFile": ("status",)}


class Schemas:
    """The schemas of a description, read once; `lax` loosens them to what Azure answers."""

    def __init__(self, path: Path, lax: bool) -> None:
        try:
            from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
        except ImportError:
            raise RuntimeError("openapi: needs the package 'jsonschema'; pip install jsonschema.") from None
        self._validator = Draft202012Validator
        described = _modern(json.loads(path.read_text("utf-8")))
        self._paths, self._components = described["paths"], described["components"]
        for name in LOOSE if lax else ():
            self._loosen(name)

    def violations(self, name: str, request: Request, body: dict[str, Any] | None) -> list[str]:
        """Return what is wrong with a request and the body of its answer, if any; nothing where it is not described."""
        operation = self._operation(name)
        if operation is None:
            return []
        found = []
        content = operation.get("requestBody", {}).get("content", {})
        if "application/json" in content:
            found += self._problems(f"{name}: request", content["application/json"]["schema"], json.loads(request.body))
        if "multipart/form-data" in content:
            fields = {key: value.decode(errors="replace") for key, (_, value) in files.form(request).items()}
            found += self._problems(f"{name}: request", content["multipart/form-data"]["schema"], fields)
        if body is not None:
            schema = operation["responses"]["200"]["content"]["application/json"]["schema"]
            found += self._problems(f"{name}: answer", schema, _with_ends(body))
        return found

    def _operation(self, name: str) -> dict[str, Any] | None:
        method, _, path = name.partition(" ")
        for ours, theirs in PATHS.items():
            path = path.replace(ours, theirs)
        operation: dict[str, Any] | None = self._paths.get(path, {}).get(method.lower())
        return operation

    def _loosen(self, name: str) -> None:
        schema = self._components["schemas"][name]
        schema.pop("required", None)
        for key in LOOSE[name]:
            schema["properties"].pop(key, None)

    def _problems(self, place: str, schema: dict[str, Any], instance: Any) -> list[str]:
        rooted = {"components": self._components, **schema}
        errors = self._validator(rooted).iter_errors(instance)
        return [f"{place}: {error.json_path}: {error.message}" for error in errors]


def _with_ends(body: dict[str, Any]) -> dict[str, Any]:
    """Return a list's body with ids at its ends: the description does not think of empty lists."""
    return body | {key: body[key] or "" for key in ("first_id", "last_id") if key in body}


def _modern(node: Any) -> Any:
    """Return a description with what is left in it of older ways, `nullable` and true `exclusiveMinimum`, turned."""
    if isinstance(node, list):
        return [_modern(item) for item in node]
    if not isinstance(node, dict):
        return node
    turned = {key: _modern(value) for key, value in node.items()}
    if turned.get("exclusiveMinimum") is True:
        turned["exclusiveMinimum"] = turned.pop("minimum")
    if turned.get("nullable") is True:
        del turned["nullable"]
        turned = {"anyOf": [turned, {"type": "null"}]}
    return turned
