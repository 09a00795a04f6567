"""What a server is asked when it starts, by both interfaces of OpenAI's, and how others call it."""

from collections.abc import Sequence

import msgspec

from runner.errors import ProofError
from runner.exporting.evidence import Evidence, Questions
from runner.exporting.exporter import Bound
from runner.exporting.proof import least
from runner.hosted.prompts import chat_messages
from runner.serving import client
from runner.serving.client import Json
from runner.serving.server import Served

PROMPTS = 5
"""Of the prompts that the proof has asked, so many are asked again over HTTP: a model of seven billion weights answers
on a CPU in half a minute each."""


class _Part(msgspec.Struct):
    text: str = ""


class _Item(msgspec.Struct):
    content: list[_Part] | None = None


class _Response(msgspec.Struct):
    output: list[_Item]


def check(served: Served, asked: Questions, run: Evidence, bound: Bound | None) -> tuple[int, int]:
    """Return how many of some prompts a server answers as the run's model does, and how many were asked.

    Raises `ProofError` where that is less than the bound allows, or the two interfaces answer differently;
    `ServiceError` where it does not answer.
    """
    # Over HTTP the text is all there is: tokens and log-probabilities were compared when the export was made.
    prompts = asked.prompts[:PROMPTS]
    said = [client.chat(served.url, served.model, chat_messages(each), asked.max_new_tokens).text for each in prompts]
    same = sum(one == other for one, other in zip(said, run.replies, strict=False))
    if bound is not None and same < least(len(prompts), bound.replies):
        raise ProofError(
            f"{served.url}: answers {same} of {len(prompts)} held-out prompts as the run's model does, though the "
            "export was proven; another version of the engine may apply another template."
        )
    if (other := _responded(served, chat_messages(prompts[0]), asked.max_new_tokens)) != said[0]:
        raise ProofError(f"{served.url}: /responses answers {other!r} where /chat/completions answers {said[0]!r}.")
    return same, len(prompts)


def _responded(served: Served, messages: Sequence[Json], limit: int) -> str:
    # Nothing is said about streaming, as the official client says nothing.
    body: dict[str, Json] = {"model": served.model, "input": messages, "max_output_tokens": limit, "temperature": 0}
    found = client.decoded(client.post(f"{served.url}/responses", body), served.url, _Response)
    return "".join(part.text for item in found.output for part in item.content or ()).strip()


def lines(served: Served) -> str:
    """Return how it is called: by the official client's Responses, and by Chat Completions from a shell."""
    return (
        f"{served.url}   (Ctrl-C ends it)\n\n"
        f'  client = openai.OpenAI(base_url="{served.url}", api_key="none")\n'
        f'  client.responses.create(model="{served.model}", input="Hello").output_text\n\n'
        f"  curl {served.url}/chat/completions -H 'Content-Type: application/json' "
        f"""-d '{{"model": "{served.model}", "messages": [{{"role": "user", "content": "Hello"}}]}}'"""
    )
