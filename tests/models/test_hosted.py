"""Models of the hosted service: their names there, and their tokens counted as the service does."""

import json
from pathlib import Path
from typing import Any

import pytest

from runner import models
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.rows import Message, Row
from runner.errors import ModelError
from runner.models import hosted_model
from runner.models.hosted_model import HostedModel

MODEL = HostedModel("0" * 64, "gpt-4.1-mini", "ft:gpt-4.1-mini:org:r-0:Ab12", "ftjob-1", "https://x/api/projects/p")

COOKBOOK = [
    (
        "system",
        None,
        "You are a helpful, pattern-following assistant that translates corporate jargon into plain English.",
    ),
    ("system", "example_user", "New synergies will help drive top-line growth."),
    ("system", "example_assistant", "Things working well together will increase revenue."),
    (
        "system",
        "example_user",
        "Let's circle back when we have more bandwidth to touch base on opportunities for increased leverage.",
    ),
    ("system", "example_assistant", "Let's talk later when we're less busy about how to do better."),
    ("user", None, "This late pivot means we don't have time to boil the ocean for the client deliverable."),
]
"""The conversation of https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken: 124 tokens by its rule,
and by the service's own answer, of which the names are 14: `example_user` is 2 tokens, `example_assistant` 3, and
each name one more."""


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Change to a folder with a hosted run, tuned-aaaa1111, and one that has no model, local-bbbb2222."""
    for name in ("tuned-aaaa1111", "local-bbbb2222"):
        (tmp_path / "runs" / name).mkdir(parents=True)
        (tmp_path / "runs" / name / "journal.jsonl").touch()
    hosted_model.write(tmp_path / "runs" / "tuned-aaaa1111", MODEL)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


@pytest.fixture
def count() -> Any:
    """Return what counts a row's tokens."""
    pytest.importorskip("rs_bpe")
    found = models.counter("hosted:gpt-4.1-mini")
    assert found is not None
    return found.tokens


def conversation(named: bool) -> Conversation:
    turns: Any = COOKBOOK
    return Conversation(tuple(Message(role, text, name if named else None) for role, name, text in turns))


def test_the_cookbooks_conversation_has_the_cookbooks_number_of_tokens(count: Any) -> None:
    assert count(conversation(named=False)) == 124 - 14


def test_the_cookbooks_conversation_with_names_has_the_cookbooks_number_of_tokens(count: Any) -> None:
    assert count(conversation(named=True)) == 124


HELLO = "hello world"  # 2 tokens; each role is 1
USER, GOOD, BAD = Message("user", HELLO), Message("assistant", HELLO), Message("assistant", "hello")

BY_HAND: dict[str, tuple[Row, int]] = {
    "a turn and its answer": (Conversation((USER, GOOD)), 3 + (3 + 1 + 2) + (3 + 1 + 2)),
    "a pair, its prompt once": (Pair((USER,), (GOOD,), (BAD,)), 3 + (3 + 1 + 2) + (3 + 1 + 2) + (3 + 1 + 1)),
    "a turn without content": (Conversation((USER, Message("assistant"))), 3 + (3 + 1 + 2) + (3 + 1)),
}


@pytest.mark.parametrize("case", BY_HAND)
def test_tokens_are_three_a_message_and_three_before_the_answer_next_to_the_text(case: str, count: Any) -> None:
    row, tokens = BY_HAND[case]
    assert count(row) == tokens


def test_calls_of_tools_are_counted(count: Any) -> None:
    calls = [{"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}]
    called = Conversation((USER, Message("assistant", tool_calls=calls)))
    assert count(called) > count(Conversation((USER, Message("assistant"))))


def test_a_marker_of_the_models_own_in_a_text_is_text(count: Any) -> None:
    marked = Conversation((Message("user", "<|endoftext|> says the file"), GOOD))
    assert count(marked) > count(Conversation((Message("user", " says the file"), GOOD))) + 1


def test_a_hosted_models_name_is_what_follows_hosted() -> None:
    assert models.hosted_name("hosted:gpt-4.1-mini") == "gpt-4.1-mini"
    assert models.hosted_name("hosted:ft:gpt-4.1-mini:org::Ab12") == "ft:gpt-4.1-mini:org::Ab12"


@pytest.mark.parametrize("source", ["run:tuned-aaaa1111", "run:tuned", "run:aaaa", "run:runs/tuned-aaaa1111"])
def test_a_hosted_runs_name_is_that_of_its_tuned_model(source: str, runs: Path) -> None:
    assert models.hosted_name(source) == MODEL.model


@pytest.mark.parametrize(
    "source", ["run:local-bbbb2222", "hf:org/name", "path:/models/x", "pypi:name@1@sha256:0", "models:/m-1", "gpt-4.1"]
)
def test_any_other_model_has_no_name_there(source: str, runs: Path) -> None:
    assert models.hosted_name(source) is None


def test_a_run_that_does_not_exist_is_reported(runs: Path) -> None:
    with pytest.raises(ModelError, match=r"^run nothing: not found; give one of: local-bbbb2222, tuned-aaaa1111\.$"):
        models.hosted_name("run:nothing")


def test_what_a_hosted_run_leaves_is_read_back(runs: Path) -> None:
    assert hosted_model.read(runs / "tuned-aaaa1111") == MODEL
    assert hosted_model.read(runs / "local-bbbb2222") is None
    written = json.loads((runs / "tuned-aaaa1111" / "model" / "hosted.json").read_bytes())
    assert written["model"] == "ft:gpt-4.1-mini:org:r-0:Ab12"


@pytest.mark.parametrize("source", ["hosted:gpt-4.1-mini", "run:tuned-aaaa1111"])
def test_a_hosted_model_has_no_weights_here_and_no_digest(source: str, runs: Path) -> None:
    assert models.identify(source, offline=True).digest == ""
    assert models.cached(source) is None
    with pytest.raises(ModelError):
        models.fetch(source)


def test_a_hosted_model_that_is_asked_for_here_is_reported_where_it_lives() -> None:
    with pytest.raises(ModelError) as error:
        models.fetch("hosted:gpt-4.1")
    assert str(error.value) == (
        "model.source: hosted:gpt-4.1 lives on the service and cannot be loaded here; use backend=foundry."
    )


def test_a_hosted_model_without_a_name_is_reported_how_to_give_it() -> None:
    with pytest.raises(ModelError, match="set MODEL_NAME, in the environment or in \\.env"):
        models.identify("hosted:")
