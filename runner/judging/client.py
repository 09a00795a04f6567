"""The judge that graders ask: each question once, its answer kept on disk, its tokens counted."""

import os
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType

from runner.errors import JudgeError
from runner.graders import Json, Judge
from runner.hosted.wording import line
from runner.judging import cache
from runner.judging.cache import Judgement, Judgements
from runner.judging.connection import Connection
from runner.judging.keys import JudgeKeys


@dataclass(frozen=True)
class Usage:
    """What judging took so far: questions asked and paid, those answered from disk, and the tokens paid."""

    asked: int = 0
    cached: int = 0
    input_tokens: int = 0
    output_tokens: int = 0


class EndpointJudge:
    """A `Judge`, for many threads at a time; `with` closes its connections. `usage` is what was paid.

    Its key and the package `openai` are needed only for what is not on disk yet.
    """

    def __init__(self, keys: JudgeKeys, environment: Mapping[str, str] = os.environ) -> None:
        self.usage = Usage()
        self._keys = keys
        self._connection = Connection(keys, environment)
        self._judgements = Judgements(cache.folder())
        self._lock = threading.Lock()

    def __enter__(self) -> "EndpointJudge":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._connection.close()

    def ask(self, model: str, messages: list[Json], options: Mapping[str, Json]) -> str:
        """Return the text of the model's answer, from disk where the same was asked before.

        Raises `JudgeError` for an answer that cannot be had, `AccessError` where the endpoint does not let us in or
        knows no such model: then no other question would be answered either.
        """
        request, name = self._identified(model, messages, options)
        # Without a lock: what is there is whole, as files are renamed into place.
        answer, paid = self._judgements.find(name), False
        if answer is None:
            try:
                # Only what is not on disk takes a place: answers from there are never behind others' questions.
                with self._connection.slot() as until:
                    answer, paid = self._judgements.get(name, lambda: self._connection.post(request, until), until)
            except JudgeError as error:
                raise JudgeError(f"{model}: {error}") from None
        self._count(answer, paid)
        if answer.refusal:
            raise JudgeError(f"{model}: the judge refuses to answer: {line(answer.refusal)}.")
        if answer.finish_reason == "length":
            raise JudgeError(
                f"{model}: the judge's answer is cut off after {answer.output_tokens:,} tokens; "
                "raise sampling_params.max_completions_tokens."
            )
        if answer.finish_reason == "content_filter":
            raise JudgeError(f"{model}: the content filter of the endpoint has stopped the judge's answer.")
        if not answer.text.strip():
            raise JudgeError(f"{model}: the judge's answer is empty.")
        return answer.text

    def known(self, model: str, messages: list[Json], options: Mapping[str, Json]) -> bool:
        """Say whether a question has been answered and paid already."""
        return self._judgements.find(self._identified(model, messages, options)[1]) is not None

    def _identified(self, model: str, messages: list[Json], options: Mapping[str, Json]) -> tuple[dict[str, Json], str]:
        """Return the body of a chat request and the name of its answer on disk."""
        # The name at the endpoint is part of the question: another deployment may be another model.
        request = {"model": self._keys.model_names.get(model, model), "messages": messages, **options}
        return request, cache.key(self._connection.url, request)

    def _count(self, answer: Judgement, paid: bool) -> None:
        with self._lock:
            # A new value each time, so that a reader in another thread never sees half of a change.
            was = self.usage
            if paid:
                tokens = was.input_tokens + answer.input_tokens, was.output_tokens + answer.output_tokens
                self.usage = Usage(was.asked + 1, was.cached, *tokens)
            else:
                self.usage = Usage(was.asked, was.cached + 1, was.input_tokens, was.output_tokens)


@dataclass(frozen=True)
class Reseeded:
    """A judge asked with another seed, to see whether it agrees with itself."""

    judge: Judge
    seed: int

    def ask(self, model: str, messages: list[Json], options: Mapping[str, Json]) -> str:
        """Return the answer to the same question with the other seed."""
        return self.judge.ask(model, messages, {**options, "seed": self.seed})
