"""Answers of deployed models, through both interfaces, whole or with `stream` piece by piece.

The name in a request is the deployment's, not the model's.
"""

from typing import Any

from tests.emulator import orders, stream
from tests.emulator.cloud import Cloud
from tests.emulator.completion import call, completion
from tests.emulator.deployments import state
from tests.emulator.messages import Answer, Refusal, Request
from tests.emulator.records import identifier


def responses(cloud: Cloud, request: Request) -> Answer:
    """Answer an input, a text or a list of messages."""
    body = request.json()
    asked = body.get("input", "")
    messages = [{"role": "user", "content": asked}] if isinstance(asked, str) else asked
    _demand_parts(messages, "input_text", "input_image", "output_text")
    text = _answer(cloud, body, messages)
    content = {"type": "output_text", "text": text, "annotations": []}
    output = {
        "id": identifier("msg_"),
        "type": "message",
        "role": "assistant",
        "status": "completed",
        "content": [content],
    }
    if cloud.calls and body.get("tools"):
        called = call(body["tools"][0], str(messages[-1].get("content")))
        output = {
            "id": identifier("fc_"),
            "type": "function_call",
            "status": "completed",
            "call_id": called["id"],
            **called["function"],
        }
    now = int(cloud.clock.now())
    answer = {
        "id": identifier("resp_"),
        "object": "response",
        "created_at": now,
        "completed_at": now,
        "status": "completed",
        "model": body["model"],
        "output": [output],
        "error": None,
        "incomplete_details": None,
        "instructions": None,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "temperature": body.get("temperature", 1.0),
        "top_p": 1.0,
        "metadata": {},
    }
    return Answer(body=stream.response(answer) if body.get("stream") else answer)


def chat(cloud: Cloud, request: Request) -> Answer:
    """Answer a conversation."""
    body = request.json()
    messages = body.get("messages", [])
    _demand_parts(messages, "text", "image_url", "refusal")
    prompt = "".join(_text(message.get("content")) for message in messages)
    answer = completion(body["model"], cloud.clock.now(), prompt, _answer(cloud, body, messages))
    if body.get("stream"):
        return Answer(body=stream.chat(answer, bool((body.get("stream_options") or {}).get("include_usage"))))
    return Answer(body=answer)


def _answer(cloud: Cloud, body: Any, messages: list[dict[str, Any]]) -> str:
    model = _model_of(cloud, str(body.get("model")))
    said = [{**message, "content": _text(message.get("content"))} for message in messages]
    name = model["name"]
    made = orders.maker(cloud, name)
    if made is not None and made[1] is not None:
        name = f"{made[0].fine_tuned_model}:ckpt-step-{made[1]}"
    return (cloud.answer or cloud.engine.answer)(name, said)


def _demand_parts(messages: list[dict[str, Any]], *allowed: str) -> None:
    """Refuse a request with parts of contents of another type: the two interfaces have different ones."""
    for content in (each.get("content") for each in messages):
        for part in content if isinstance(content, list) else ():
            if part.get("type") not in allowed:
                raise Refusal(400, f"Invalid value: '{part.get('type')}'. Supported values are: {', '.join(allowed)}.")


def _model_of(cloud: Cloud, name: str) -> dict[str, Any]:
    """Return the model that answers under a name."""
    found = cloud.deployments.get(name)
    now = cloud.clock.now()
    if found is not None and found.before is not None and state(found, now) == "Creating":
        return found.before
    if found is None or state(found, now) != "Succeeded" or now < found.usable_at:
        message = (
            "The API deployment for this resource does not exist. If you created the deployment within the last "
            "5 minutes, please wait a moment and try again."
        )
        raise Refusal(404, message, "DeploymentNotFound")
    return found.model


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "".join(str(part.get("text", "")) for part in content)
    return str(content)
