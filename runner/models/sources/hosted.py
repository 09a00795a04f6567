"""`hosted:NAME`: a model that lives on the hosted service, by its name there (`MODEL_NAME` with model=hosted)."""

from pathlib import Path
from typing import Protocol

import msgspec

from runner.data.rows import Row, canonical
from runner.errors import ModelError
from runner.graders import Json
from runner.models.source import Counter, Source

TOKENS_PER_MESSAGE = 3
TOKENS_BEFORE_ANSWER = 3
"""What the chat format adds: https://cookbook.openai.com/examples/how_to_count_tokens_with_tiktoken."""
SAMPLE_ROWS = 5000


class Encoding(Protocol):
    """A tokenizer, as far as it is used here."""

    def count(self, text: str) -> int:
        """Return the tokens of a text."""


class Hosted(Source):
    """Models that live at a hosted service."""

    scheme = "hosted"
    no_rest = (
        "the hosted model's name is missing; set MODEL_NAME, in the environment or in .env, to a base model that the "
        "service can tune (gpt-4.1-mini, say), or give model.source=hosted:NAME."
    )

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return no digest: the name, which has a version, is all that the service reports."""
        return ""

    def cached(self, rest: str) -> Path | None:
        """Return None: its weights never come here."""
        return None

    def fetch(self, rest: str) -> Path:
        """Raise `ModelError`: its weights cannot be had."""
        raise ModelError(
            f"model.source: hosted:{rest} lives on the service and cannot be loaded here; use backend=foundry."
        )

    def hosted_name(self, rest: str) -> str | None:
        """Return the name."""
        return rest.strip()

    def counter(self, rest: str) -> Counter | None:
        """Return what counts tokens as the service's models do (o200k), where the package for it is installed."""
        try:
            from rs_bpe.bpe import openai
        except ImportError:
            return None
        # The encoding of gpt-4o and all since; older models count a few per cent differently.
        encoding: Encoding = openai.o200k_base()

        def tokens(row: Row) -> int:
            tools = encoding.count(msgspec.json.encode(row.tools).decode()) if row.tools else 0
            return TOKENS_BEFORE_ANSWER + tools + sum(_message_tokens(each, encoding) for each in _messages(row))

        return Counter(tokens, SAMPLE_ROWS)


def _messages(row: Row) -> list[dict[str, Json]]:
    content = msgspec.json.decode(canonical(row))
    # A pair's prompt once, as the service counts it.
    return [each for key in ("messages", "prompt", "chosen", "rejected") for each in content.get(key, ())]


def _message_tokens(message: dict[str, Json], encoding: Encoding) -> int:
    texts = [str(message.get("content") or ""), str(message["role"])]
    extra = TOKENS_PER_MESSAGE
    if "name" in message:
        texts.append(str(message["name"]))
        extra += 1  # a name costs a token of its own
    if "tool_calls" in message:
        texts.append(msgspec.json.encode(message["tool_calls"]).decode())
    return extra + sum(encoding.count(text) for text in texts)


SOURCE = Hosted()
