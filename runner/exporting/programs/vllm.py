"""vLLM by its own server, as `runner.serve` starts it: its loader, its template engine, its arithmetic.

Source: https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html
"""

import subprocess
from collections.abc import Sequence
from functools import cached_property

import msgspec

from runner.errors import RequestError, ServiceError
from runner.exporting.by_engine import MODEL, Asked, ByEngine
from runner.exporting.evidence import Evidence, Ids, Questions, Scored
from runner.hosted.prompts import chat_messages
from runner.serving import client
from runner.serving.client import Json

VERSION_SECONDS = 300
"""The longest that it may take to say its version, for which it imports all of itself: 15 s on two busy cores."""


class _Tokens(msgspec.Struct):
    tokens: Ids


class _Logprob(msgspec.Struct):
    logprob: float


class _Choice(msgspec.Struct):
    index: int
    text: str
    finish_reason: str
    token_ids: Ids
    prompt_logprobs: list[dict[str, _Logprob] | None] | None = None


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class _Server(Asked):
    """Its own route, and its own fields of Completions."""

    def evidence(self, asked: Questions) -> Evidence:
        """Return what it says."""
        prompts = [self._ids(chat_messages(each), True) for each in asked.prompts]
        return Evidence(
            prompts=prompts,
            conversations=[self._ids(chat_messages(each.messages), False) for each in asked.scored],
            logps=[self._logps(each) for each in asked.scored],
            replies=[each.text.strip() for each in self._say(prompts, asked.max_new_tokens)],
            # It names none; one that it has in addition, its tokenizer's say, shows in the greedy answers alone.
            ends=[],
            stops=[self._stops(prompts[0], end) for end in asked.ends],
        )

    def _ids(self, messages: Sequence[Json], answer_next: bool) -> Ids:
        body: dict[str, Json] = {"model": MODEL, "messages": messages, "add_generation_prompt": answer_next}
        return self.post("tokenize", body, _Tokens).tokens

    def _say(self, prompts: Sequence[Ids], limit: int, **more: Json) -> list[_Choice]:
        """Return the greedy answer to each prompt, all of which are computed together."""
        body: dict[str, Json] = {
            "model": MODEL, "prompt": prompts, "max_tokens": limit, "temperature": 0, "return_token_ids": True,
        }  # fmt: skip
        seconds = client.SECONDS * len(prompts)
        said = self.post("v1/completions", body | more, _Completion, seconds).choices
        return sorted(said, key=lambda each: each.index)

    def _logps(self, row: Scored) -> list[float]:
        # A row at a time: vLLM has the logits of all tokens of what it computes together, 5 GB for 8,192 of them with
        # 150,000 words, next to the memory that it has set aside. 0: of the tokens that are there alone.
        (said,) = self._say([[*row.prompt, *row.answer]], 1, prompt_logprobs=0)
        found = (said.prompt_logprobs or [])[len(row.prompt) :]
        try:
            return [(each or {})[str(token)].logprob for each, token in zip(found, row.answer, strict=True)]
        except (KeyError, ValueError) as error:
            raise ServiceError(f"{self.url}: it gives no log-probability of a token of an answer") from error

    def _stops(self, prompt: Ids, end: int) -> bool:
        # Three tokens: one that does not stop has to have the room to continue.
        (said,) = self._say([prompt], 3, allowed_token_ids=[end])
        return said.finish_reason == "stop" and len(said.token_ids) == 1


class Vllm(ByEngine):
    """vLLM, of whatever environment."""

    name = "vllm"
    asked = _Server

    def demand(self) -> None:
        """Raise `RequestError` where it is not there, or is another program."""
        super().demand()
        self.version()  # before the weights are written

    def version(self) -> str:
        """Return what the program says of its version."""
        return self._version

    @cached_property
    def _version(self) -> str:
        program = self.started.demand()
        try:
            done = subprocess.run([program, "--version"], capture_output=True, check=True, timeout=VERSION_SECONDS)
        except (OSError, subprocess.SubprocessError) as error:
            raise RequestError(f"program: {program} does not say its version ({error}); is it vLLM's?") from error
        said = done.stdout.decode(errors="replace").split()
        if not said or not said[-1][0].isdigit():
            raise RequestError(f"program: {program} says no number as its version; is it vLLM's?")
        return f"vllm {said[-1]}"


PROGRAM = Vllm
