"""Models that are asked see the tools of a row, through either interface, and their calls reach the graders."""

import json
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any

import pytest

pytest.importorskip("openai")

from runner.backends.foundry.deployed_steps import _can_be_asked
from runner.data.images import Image
from runner.data.json_value import Json
from runner.data.kinds.problem import Problem
from runner.data.rows import Message, Prompt
from runner.evaluation.models import Endpoint
from runner.hosted import prompts
from runner.hosted.generate import Deployed
from runner.judging.keys import JudgeKeys
from runner.record.samples import Reply, Sampling
from tests.emulator import Emulator
from tests.hosted.test_classification import service
from tests.judging.emulated import asked
from tests.judging.emulated import cloud as cloud
from tests.pictures import ADDRESS

pytestmark = pytest.mark.slow

TOOL: dict[str, Json] = {
    "type": "function",
    "function": {"name": "now", "description": "Returns the time.", "parameters": {"type": "object", "properties": {}}},
}
CALL: dict[str, Json] = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "now", "arguments": {"zone": "Zürich"}},
}
AS_JSON = CALL | {"function": {"name": "now", "arguments": '{"zone": "Zürich"}'}}
TURNS = (
    Message("user", "What time is it?"),
    Message("assistant", tool_calls=[CALL]),
    Message("tool", "12:00", tool_call_id="call_1"),
    Message("assistant", "Noon."),
    Message("user", "And now?"),
)
HOW = Sampling(max_new_tokens=20)


def first(replies: Iterator[Sequence[Reply]]) -> Reply:
    return next(replies)[0]


def test_an_endpoint_is_offered_the_tools_and_its_calls_are_kept(cloud: Emulator) -> None:
    cloud.calls = True
    url = cloud.judge_environment()["OPENAI_BASE_URL"]
    with closing(Endpoint(replace(JudgeKeys(), url=url), "first")) as model:
        reply = first(model.replies([Prompt(TURNS, [TOOL])], HOW))
    [request] = asked(cloud)
    assert request["tools"] == [TOOL]
    assert request["messages"][1] == {"role": "assistant", "content": "", "tool_calls": [AS_JSON]}
    assert request["messages"][2] == {"role": "tool", "content": "12:00", "tool_call_id": "call_1"}
    assert (reply.text, reply.ended) == ("", True)
    assert called(reply) == {"name": "now", "arguments": '{"said": "And now?"}'}


def test_a_deployment_is_offered_the_tools_and_its_calls_are_kept(
    cloud: Emulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cloud.calls = True
    cloud.add_deployment("mine", "gpt-4.1-mini")
    for name, value in cloud.environment().items():
        monkeypatch.setenv(name, value)
    with closing(service(cloud)) as there:
        reply = first(Deployed(there, "mine").replies([Prompt(TURNS, [TOOL])], HOW))
    [request] = [each.json() for each in cloud.requests if each.path.endswith("/responses")]
    assert request["tools"] == [TOOL["function"] | {"type": "function", "strict": False}]  # type: ignore[operator]
    assert request["input"][1:3] == [
        {"type": "function_call", "call_id": "call_1", "name": "now", "arguments": '{"zone": "Zürich"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "12:00"},
    ]
    assert called(reply) == {"name": "now", "arguments": '{"said": "And now?"}'}


def called(reply: Reply) -> Any:
    [call] = reply.tool_calls or []
    return json.loads(json.dumps(call))["function"]


def test_a_prompt_without_tools_is_asked_as_ever() -> None:
    prompt = Prompt((Message("system", "Be brief."), Message("user", "Hi")))
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hi"}]
    assert prompts.chat_messages(prompt.turns) == prompts.response_input(prompt) == plain
    assert prompts.chat_tools(prompt) == prompts.response_tools(prompt) == {}


def test_images_of_a_prompt_are_parts_of_its_content_between_the_texts() -> None:
    turn = Message("user", "Is this the same?", images=(Image(ADDRESS, "low", 7), Image("data:", None, 17)))
    texts = ["Is this", " the same?"]
    assert prompts.chat_messages([turn]) == [
        {"role": "user", "content": [
            {"type": "text", "text": texts[0]}, {"type": "image_url", "image_url": {"url": ADDRESS, "detail": "low"}},
            {"type": "text", "text": texts[1]}, {"type": "image_url", "image_url": {"url": "data:"}},
        ]}
    ]  # fmt: skip
    assert prompts.response_input(Prompt((turn,))) == [
        {"role": "user", "content": [
            {"type": "input_text", "text": texts[0]}, {"type": "input_image", "image_url": ADDRESS, "detail": "low"},
            {"type": "input_text", "text": texts[1]}, {"type": "input_image", "image_url": "data:", "detail": "auto"},
        ]}
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("turns", "asks"),
    [
        ((Message("user", "", images=(Image(ADDRESS),)),), True),
        (TURNS, True),
        ((TURNS[0], Message("assistant", "It is"), Message("tool", "12:00", tool_call_id="call_1")), False),
        ((Message("user", ""),), False),
    ],
)
def test_what_a_tool_answers_is_asked_with_its_call_alone(turns: tuple[Message, ...], asks: bool) -> None:
    assert bool(_can_be_asked(Problem(turns, tools=[TOOL]))) == asks
