"""Graders as the service checks and runs them: `fine_tuning/alpha/graders`, by the graders of the runner itself."""

import time
from typing import Any

from runner import graders
from runner.errors import RequestError
from runner.graders import Grade, Grader, Sample, Subject
from tests.emulator.cloud import Cloud
from tests.emulator.messages import Answer, Refusal, Request

KNOWN = ("string_check", "text_similarity", "score_model", "python", "multi", "endpoint")
OURS = ("timeout", "memory")
"""Fields of the runner's graders that the service does not have."""
ERRORS = (
    "formula_parse_error", "sample_parse_error", "truncated_observation_error", "unresponsive_reward_error",
    "invalid_variable_error", "other_error", "python_grader_server_error", "python_grader_runtime_error",
    "model_grader_server_error", "model_grader_refusal_error", "model_grader_parse_error",
)  # fmt: skip
DETAILS = (
    "python_grader_server_error_type", "python_grader_runtime_error_details", "model_grader_server_error_details",
)  # fmt: skip


def check(grader: Any, where: str) -> Grader:
    """Return a grader; refuse one of an unknown type, with fields that are not its own, or that cannot work."""
    if not isinstance(grader, dict) or grader.get("type") not in KNOWN:
        raise _bad(f"{where} must be an object with a type among {', '.join(KNOWN)}.", where)
    if not grader.get("name"):
        raise _bad(f"Missing required parameter: '{where}.name'.", where)
    for field in OURS:
        if field in grader:
            raise _bad(f"Unknown parameter: '{where}.{field}'.", where)
    if grader["type"] == "multi":
        _check_multi(grader, where)
    try:
        return graders.make(grader, where)
    except RequestError as error:
        raise _bad(f"Invalid grader: {error}", where) from None


def validate(cloud: Cloud, request: Request) -> Answer:
    """Check a grader and return it."""
    grader = request.json().get("grader")
    check(grader, "grader")
    return Answer(body={"grader": grader})


def run(cloud: Cloud, request: Request) -> Answer:
    """Grade an answer; what goes wrong is a reward of 0 with a mark. `cloud.regrade` may change the reward."""
    body = request.json()
    grader = check(body.get("grader"), "grader")
    began = time.perf_counter()
    with grader.grading(None) as grading:
        grade = grading(Subject(body.get("item") or {}, Sample(body["model_sample"])))
    reward = cloud.regrade(grade.score or 0.0)
    return Answer(
        body={
            "reward": reward,
            "sub_rewards": dict(grade.parts),
            "metadata": {
                "name": grader.name,
                "type": grader.type,
                "errors": dict.fromkeys(ERRORS, False) | dict.fromkeys(DETAILS) | _errors(grader, grade),
                "execution_time": time.perf_counter() - began,
                "scores": dict(grade.parts),
                "token_usage": None,
                "sampled_model_name": None,
            },
            "model_grader_token_usage_per_model": {},
        }
    )


def _errors(grader: Grader, grade: Grade) -> dict[str, bool | str]:
    if grade.score is not None:
        return {}
    if "is missing" in grade.error:
        return {"invalid_variable_error": True}
    if grader.type == "python":
        return {"python_grader_runtime_error": True, "python_grader_runtime_error_details": grade.error}
    return {"other_error": True}


def _check_multi(grader: dict[str, Any], where: str) -> None:
    parts = grader.get("graders")
    if not isinstance(parts, dict) or isinstance(parts.get("type"), str):
        got = "a string" if isinstance(parts, dict) else "a list" if isinstance(parts, list) else "nothing"
        raise _bad(
            "Multigrader validation test failed: 400: Invalid type for 'graders.input': expected an object, but got "
            f"{got} instead.",
            where,
        )
    if len(parts) < 2:
        raise _bad(f"{where}: a multi grader needs two graders at least, got {len(parts)}.", where)
    for key, part in parts.items():
        if isinstance(part, dict) and part.get("type") == "multi":
            raise _bad(f"{where}.graders.{key}: a multi grader cannot be within another.", where)
        check(part, f"{where}.graders.{key}")


def _bad(message: str, param: str) -> Refusal:
    return Refusal(400, message, "invalidPayload", param)
