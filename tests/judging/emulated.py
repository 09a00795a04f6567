"""An emulator whose judge is where the environment says, with an empty cache of judgements."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from runner.data.images import Image
from runner.data.rows import Message
from runner.evaluation.grading import item_of
from runner.graders import Grade, Grader, Json, Sample, Subject
from runner.judging.client import EndpointJudge
from runner.judging.keys import JudgeKeys
from runner.record.graded import Asked
from tests.emulator import Emulator
from tests.pictures import ADDRESS, picture

JUDGE, GRADE = "POST judge", "POST grade"


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Emulator]:
    pytest.importorskip("openai")
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    with Emulator() as cloud:
        for name, value in cloud.judge_environment().items():
            monkeypatch.setenv(name, value)
        yield cloud
    assert cloud.violations == []
    written = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert [str(path) for path in written if b"secret-token-" in path.read_bytes()] == []


@pytest.fixture
def judge(cloud: Emulator) -> Iterator[EndpointJudge]:
    with EndpointJudge(JudgeKeys()) as judge:
        yield judge


def graded(grader: Grader, subject: Subject, judge: EndpointJudge | None = None) -> Grade:
    """Grade one answer."""
    with grader.grading(judge) as grade:
        return grade(subject)


def subject(
    answer: str, other: str | None = None, question: str = "How long does bread keep?", **item: Json
) -> Subject:
    """Return an answer to a question, next to another model's where one is given."""
    prompt: Json = [{"role": "user", "content": question}]
    return Subject({"messages": prompt, **item}, Sample(answer), None if other is None else Sample(other))


def subject_with_images(answer: str, other: str | None = None) -> Subject:
    """Return an answer to a question about two images, one of them in the row itself."""
    images = (Image(picture(), at=10), Image(ADDRESS, at=17))
    row = Asked(row="row", prompt=(Message("user", "Which tree is it?", images=images),))
    return Subject(item_of(row), Sample(answer), None if other is None else Sample(other))


def messages(text: str) -> list[Any]:
    """Return a question to a judge."""
    return [{"role": "user", "content": text}]


def asked(cloud: Emulator) -> list[Any]:
    """Return the bodies of all requests that the judge received, in turn."""
    return [request.json() for request in cloud.requests if request.path.endswith("/chat/completions")]
