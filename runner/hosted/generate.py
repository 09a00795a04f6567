"""Deployments asked, prompt by prompt."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from runner.hosted.connection import Asking, Connection, now
from runner.record.events import Event, Progress
from runner.record.samples import Prompt, Replies, Reply, Sampling

REFUSED = "[refused by the content filter]"
LEAST_TOKENS = 16
"""The service takes no lower limit: https://platform.openai.com/docs/api-reference/responses/create"""


def answers(
    service: Connection, deployment: str, prompts: Sequence[Prompt], sampling: Sampling
) -> Generator[Event, None, Replies]:
    """Return the deployment's answers to each prompt; a refusal is an answer too."""
    found: list[list[Reply]] = []
    for number, prompt in enumerate(prompts, 1):
        replies = []
        for _ in range(sampling.per_prompt):
            replies.append((yield from answer(service, deployment, prompt, sampling)))
        found.append(replies)
        yield Progress("sample", number, len(prompts))
    return found


def answer(service: Connection, deployment: str, prompt: Prompt, sampling: Sampling) -> Asking[Reply]:
    """Return one answer. For minutes after it is ready a deployment may not be found: that is waited for."""
    asked: Any = [{"role": turn.role, "content": turn.content or ""} for turn in prompt]

    def ask() -> Any:
        try:
            return service.openai.responses.create(
                model=deployment, input=asked, max_output_tokens=max(LEAST_TOKENS, sampling.max_new_tokens),
                temperature=sampling.temperature, top_p=sampling.top_p,
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
    return Reply(found.output_text.strip(), cut is None)


@dataclass(frozen=True)
class Deployed:
    """A deployment, for a conversation."""

    service: Connection
    name: str

    def answer(self, prompt: Prompt, max_new_tokens: int = 512) -> str:
        """Return its answer."""
        return now(answer(self.service, self.name, prompt, Sampling(max_new_tokens=max_new_tokens))).text
