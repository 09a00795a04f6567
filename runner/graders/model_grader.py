"""What graders that ask a model have in common: the chat they send, the form of the answer, how it is read."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from typing import ClassVar, Literal, TypeVar

import msgspec

from runner.errors import JudgeError, RequestError
from runner.graders import Grade, Grading, Json, Judge, Subject, templates
from runner.graders.templates import Templated

REASON_LENGTH = 300
"""Letters of a judge's reason that are kept."""


class TextPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A part of a message; pictures and sound, which the service takes too, are refused."""

    type: Literal["input_text", "output_text", "text"]
    text: str


class Turn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A message to the judge, which may hold templates."""

    role: Literal["user", "assistant", "system", "developer"]
    content: str | TextPart | list[str | TextPart]
    type: Literal["message"] | None = None

    @property
    def texts(self) -> list[str]:
        """The texts of its parts."""
        parts = self.content if isinstance(self.content, list) else [self.content]
        return [part if isinstance(part, str) else part.text for part in parts]


class Sampling(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """How the judge samples its answer. `max_completions_tokens` is the service's own spelling."""

    seed: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_completions_tokens: int | None = None
    reasoning_effort: str | None = None

    @property
    def options(self) -> dict[str, Json]:
        """The fields of a chat request, where it is `max_completion_tokens`."""
        found = {key: value for key, value in msgspec.to_builtins(self).items() if value is not None}
        # Chat completions know `max_completion_tokens`; the grader's JSON has one s more (docs/judges.md).
        limit = found.pop("max_completions_tokens", None)
        return found if limit is None else found | {"max_completion_tokens": limit}


class Step(msgspec.Struct, frozen=True):
    """A step of a judge's reasoning."""

    description: str = ""
    conclusion: str = ""


class Verdict(msgspec.Struct, frozen=True):
    """What a judge answers; a subclass says what its `result` is."""

    steps: list[Step] = []

    @property
    def reason(self) -> str:
        """The judge's own conclusions, shortened."""
        return shortened("; ".join(step.conclusion.strip() for step in self.steps if step.conclusion.strip()))


Form = TypeVar("Form", bound=Verdict)


class ModelGrader(Templated, frozen=True, kw_only=True):
    """A grader that asks a judge: a subclass says what by `judged`, which may raise `JudgeError`."""

    concurrent: ClassVar[bool] = True

    model: str
    """The judge's name, the service's; `evaluation.judge.model_names` says which deployment of ours it is."""

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the templates, and the package that is missing."""
        yield from super().problems()
        if find_spec("openai") is None:
            yield f"type: {self.type} needs the package openai; pip install 'runner[graders]'."

    def models(self) -> Iterable[str]:
        """Return the one judge that is asked."""
        return [self.model]

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        """Lend what asks the judge; an answer that cannot be had or read is `Grade.error`, never a score."""
        if judge is None:
            raise RequestError(f"{self.name or self.type}: {self.model} is to judge, and no judge is configured.")

        def grade(subject: Subject) -> Grade:
            try:
                return self.judged(subject, judge)
            # AccessError passes: every other question would fail in the same way, so the grading ends.
            except (JudgeError, templates.MissingValueError) as error:
                return Grade(None, error=str(error))

        yield grade

    def judged(self, subject: Subject, judge: Judge) -> Grade:
        """Ask the judge and return its grade. Raises `JudgeError`."""
        raise NotImplementedError


class ChatGrader(ModelGrader, frozen=True, kw_only=True):
    """A grader whose configuration has the messages to the judge."""

    input: list[Turn]

    def templates(self) -> Iterable[str]:
        """Return the texts of the messages."""
        return [text for turn in self.input for text in turn.texts]

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the messages."""
        yield from super().problems()
        if not self.input:
            yield "input: got no message; allowed: at least one, which shows the judge {{ sample.output_text }}."

    def warnings(self) -> Iterable[str]:
        """Return what is odd in the messages: a judge that does not see the answer is paid for nothing."""
        yield from super().warnings()
        if all(namespace != "sample" for text in self.templates() for namespace, _ in templates.paths(text)):
            yield "input: the judge does not see the answer; fix: {{ sample.output_text }} in a message."

    def messages(self, subject: Subject) -> list[Json]:
        """Return the messages as a chat request has them, their templates filled; parts of text become one text."""
        return [
            {"role": turn.role, "content": "".join(templates.render(text, subject) for text in turn.texts)}
            for turn in self.input
        ]


def answer_form(name: str, result: Mapping[str, Json]) -> dict[str, Json]:
    """Return the `response_format` that asks for `{"steps": […], "result": …}`; `result` is the schema of the latter.

    It is what the service asks its judges for (guide on graders, "Score model graders").
    """
    # The steps come before the result, so that the judge reasons before it decides.
    step = _closed({"description": {"type": "string"}, "conclusion": {"type": "string"}})
    schema = _closed({"steps": {"type": "array", "items": step}, "result": dict(result)})
    return {"type": "json_schema", "json_schema": {"name": name, "strict": True, "schema": schema}}


def ask(
    judge: Judge, model: str, messages: list[Json], sampling: Sampling, response_format: Json, form: type[Form]
) -> Form:
    """Return the judge's answer, read strictly.

    Raises `JudgeError` for one that cannot be had, is no JSON, or has no result of the right type.
    """
    text = judge.ask(model, messages, {**sampling.options, "response_format": response_format})
    try:
        # Strictly, though the endpoint promises the form: not every one that calls itself compatible keeps to it.
        return msgspec.json.decode(text, type=form)
    except msgspec.DecodeError as error:
        raise JudgeError(
            f"{model}: the judge's answer is not of the form asked for: {error}; got {quoted(text)}."
        ) from None


def shortened(text: str, length: int = REASON_LENGTH) -> str:
    """Return a text on one line, of so many letters at most."""
    plain = " ".join(text.split())
    return plain if len(plain) <= length else plain[: length - 1] + "…"


def quoted(text: str) -> str:
    """Return the beginning of a foreign text, as part of a sentence."""
    return json.dumps(shortened(text, 80), ensure_ascii=False)


def _closed(properties: dict[str, Json]) -> dict[str, Json]:
    return {"type": "object", "properties": properties, "required": list(properties), "additionalProperties": False}
