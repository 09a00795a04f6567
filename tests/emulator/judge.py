"""Endpoints that grade: a judge behind OpenAI's chat API, and a team's own endpoint grader; each with its own key.

The judge follows a rule, or is the model that the engine has (with `LocalTraining` a real one). What it answered is
counted by content, as that is what is paid.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tests.emulator.completion import call, completion
from tests.emulator.messages import Answer, Refusal, Request

if TYPE_CHECKING:
    from tests.emulator.cloud import Cloud

Rule = Callable[[str], Any]
"""What the judge makes of a question, all its messages as one text: the `result` of its answer."""


class Judge:
    """What tests can set of the endpoints, and what they have been asked."""

    key = "secret-token-of-the-judge"
    grader_key = "secret-token-of-the-grader"

    def __init__(self) -> None:
        self.rule: Rule | None = scores(".")
        self.score: Callable[[dict[str, Any]], Any] = lambda body: 1.0
        self.paid: Counter[str] = Counter()
        """Each question that was answered, by its content, and how often."""


def scores(pattern: str, hit: float = 1.0, miss: float = 0.0) -> Rule:
    """Return a judge that gives a score by whether something is in the question."""
    return lambda text: hit if re.search(pattern, text) else miss


def labels(pattern: str, hit: str, miss: str) -> Rule:
    """Return a judge that gives a label by whether something is in the question."""
    return lambda text: hit if re.search(pattern, text) else miss


def prefers_longer(text: str) -> str:
    """Prefer the longer of two answers, wherever it is shown."""
    return preferred(text, len)


def prefers_first(text: str) -> str:
    """Prefer the answer that is shown first, whatever it says: a judge with a bias."""
    return "A"


def preferred(text: str, worth: Callable[[str], float]) -> str:
    """Return which of the two answers in a pairwise question is worth more."""
    shown = json.loads(text[text.index('{\n "conversation"') :])
    a, b = worth(shown["answer_A"]), worth(shown["answer_B"])
    return "tie" if a == b else "A" if a > b else "B"


def chat(cloud: "Cloud", request: Request) -> Answer:
    """Judge: answer `{"steps": […], "result": …}` by the rule, or whatever the engine's model says."""
    shown = request.headers.get("authorization", "").removeprefix("Bearer ")
    # As Azure's endpoints do: a key, or a token of Microsoft Entra ID.
    if shown != cloud.judge.key and not cloud.identity.opens(shown, "data"):
        raise Refusal(401, f"Incorrect API key provided: {shown}.", "invalid_api_key")
    body = request.json()
    cloud.judge.paid[json.dumps(body, sort_keys=True)] += 1
    messages = body["messages"]
    question = "\n".join(str(message["content"]) for message in messages)
    if cloud.judge.rule is None:
        text = cloud.engine.answer(body["model"], messages)
    else:
        result = cloud.judge.rule(question)
        steps = [{"description": "apply the rule", "conclusion": f"the rule says {result}"}]
        text = json.dumps({"steps": steps, "result": result})
    calls = [call(body["tools"][0], str(messages[-1]["content"]))] if cloud.calls and body.get("tools") else None
    return Answer(body=completion(body["model"], cloud.clock.now(), question, text, calls))


def grade(cloud: "Cloud", request: Request) -> Answer:
    """Grade as a team's endpoint does."""
    if request.headers.get("x-grader-key") != cloud.judge.grader_key:
        raise Refusal(401, f"Wrong key: {request.headers.get('x-grader-key')}.", "unauthorized")
    return Answer(body={"score": cloud.judge.score(request.json())})
