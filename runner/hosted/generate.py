"""Deployments asked: one answer a prompt, as greedy as the service allows."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

from runner.hosted.connection import Asking, Connection, now
from runner.record.events import Event, Progress
from runner.record.samples import Answer, Prompt

REFUSED = "[refused by the content filter]"


def answers(
    service: Connection, deployment: str, prompts: Sequence[Prompt], max_new_tokens: int
) -> Generator[Event, None, list[Answer]]:
    """Return the deployment's answer to each prompt, and whether it ended by itself; a refusal is an answer too."""
    found = []
    for number, prompt in enumerate(prompts, 1):
        found.append((yield from answer(service, deployment, prompt, max_new_tokens)))
        yield Progress("sample", number, len(prompts))
    return found


def answer(service: Connection, deployment: str, prompt: Prompt, max_new_tokens: int) -> Asking[Answer]:
    """Return one answer. For minutes after it is ready a deployment may not be found: that is waited for."""
    asked: Any = [{"role": turn.role, "content": turn.content or ""} for turn in prompt]

    def ask() -> Any:
        try:
            return service.openai.responses.create(
                model=deployment, input=asked, max_output_tokens=max(16, max_new_tokens), temperature=0.0
            )
        except service.foreign as error:
            if service.classify(error).kind == "filtered":
                return None
            raise

    found = yield from service.ask(f"asking the deployment {deployment}", ask, awaited=("missing",))
    if found is None:
        return REFUSED, True
    cut = found.incomplete_details.reason if found.incomplete_details else None
    if cut == "content_filter":
        return REFUSED, True
    return found.output_text.strip(), cut is None


@dataclass(frozen=True)
class Deployed:
    """A deployment, for a conversation."""

    service: Connection
    name: str

    def answer(self, prompt: Prompt, max_new_tokens: int = 512) -> str:
        """Return its answer."""
        return now(answer(self.service, self.name, prompt, max_new_tokens))[0]
