"""Deployments asked, prompt by prompt."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from runner.data.rows import Prompt
from runner.hosted import prompts
from runner.hosted.connection import Asking, Connection, now
from runner.record.events import Event, Progress
from runner.record.samples import Replies, Reply, Sampling

REFUSED = "[refused by the content filter]"
LEAST_TOKENS = 16
"""The service takes no lower limit: https://platform.openai.com/docs/api-reference/responses/create"""


def answers(
    service: Connection, deployment: str, asked: Sequence[Prompt], sampling: Sampling
) -> Generator[Event, None, Replies]:
    """Return the deployment's answers to each prompt; a refusal is an answer too."""
    found: list[list[Reply]] = []
    for number, prompt in enumerate(asked, 1):
        found.append((yield from _replies(service, deployment, prompt, sampling)))
        yield Progress("sample", number, len(asked))
    return found


def _replies(service: Connection, deployment: str, prompt: Prompt, sampling: Sampling) -> Asking[list[Reply]]:
    replies = []
    for _ in range(sampling.per_prompt):
        replies.append((yield from answer(service, deployment, prompt, sampling)))
    return replies


def answer(service: Connection, deployment: str, prompt: Prompt, sampling: Sampling) -> Asking[Reply]:
    """Return one answer. For minutes after it is ready a deployment may not be found: that is waited for."""
    asked, tools = prompts.response_input(prompt), prompts.response_tools(prompt)

    def ask() -> Any:
        try:
            return service.openai.responses.create(
                model=deployment, input=asked, max_output_tokens=max(LEAST_TOKENS, sampling.max_new_tokens),
                temperature=sampling.temperature, top_p=sampling.top_p, **tools,
            )  # fmt: skip
        except service.foreign as error:
            if service.classify(error).kind == "filtered":
                return None
            raise

    found = yield from service.ask(f"asking the deployment {deployment}", ask, awaited=("missing",))
    if found is None:
        return Reply(REFUSED)
    cut = found.incomplete_details.reason if found.incomplete_details else None
    if cut == "content_filter":
        return Reply(REFUSED)
    return Reply(found.output_text.strip(), cut is None, prompts.response_calls(found.output))


@dataclass(frozen=True)
class Deployed:
    """A deployment that answers prompts."""

    service: Connection
    name: str

    @property
    def identity(self) -> str:
        """Where it is, and its name."""
        return f"{self.service.endpoint} {self.name}"

    def close(self) -> None:
        """Nothing is held."""

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Yield the answers to each prompt, one request after the other."""
        for prompt in prompts:
            yield now(_replies(self.service, self.name, prompt, sampling))
