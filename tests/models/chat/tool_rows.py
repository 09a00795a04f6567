"""Made-up conversations with tools, and tokenizers with the chat templates of models that know tools."""

import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from runner.data.json_value import Json
from runner.data.kinds.conversation import Conversation
from runner.data.rows import Message, Tools
from tests import tiny

TEMPLATES = Path(__file__).parent / "templates"
ENDS = {
    "hermes": "<|im_end|>", "llama": "<|eot_id|>", "mistral": "</s>", "smol": "<|im_end|>", "granite": "<|end_of_text|>"
}  # fmt: skip
"""The templates, and which token ends a turn in each."""
SPECIAL = [
    "<s>", "</s>", "<|eot_id|>", "<|start_header_id|>", "<|end_header_id|>", "[INST]", "[/INST]", "[TOOL_CALLS]",
    "[AVAILABLE_TOOLS]", "[/AVAILABLE_TOOLS]", "[TOOL_RESULTS]", "[/TOOL_RESULTS]", "<|start_of_role|>",
    "<|end_of_role|>", "<|end_of_text|>", "<|tool_call|>", "<tool_call>", "</tool_call>",
]  # fmt: skip
WORDS = [
    "Wien",
    "Zürich",
    "bread",
    "7 °C",
    "a <b> & 'c'",
    '"quoted"',
    "你好",
    "line\nbreak",
    "{}",
    "[1]",
    "  spaced ",
    "42",
]
ONE_CALL = ("llama",)
"""Templates that take one call a turn, without words next to it."""
MARK = re.compile(r"\{%-?\s*(end)?generation\s*-?%\}")


def tokenizer_folder(folder: Path, name: str, marks: bool = True) -> Path:
    """Save a tokenizer with one of `TEMPLATES`, without `marks` as most models come, and return its folder."""
    from transformers import PreTrainedTokenizerFast

    folder.mkdir(parents=True, exist_ok=True)
    tiny.make_tokenizer(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": SPECIAL, "bos_token": "<s>", "eos_token": ENDS[name]})
    source = (TEMPLATES / f"{name}.jinja").read_text("utf-8")
    tokenizer.chat_template = (
        source if marks else MARK.sub(lambda tag: "{%- if true %}" if not tag[1] else "{%- endif %}", source)
    )
    tokenizer.save_pretrained(folder)
    ends = {"eos_token_id": tokenizer.convert_tokens_to_ids(ENDS[name])}
    (folder / "generation_config.json").write_text(json.dumps(ends), "utf-8")
    return folder


def conversations(seed: int, count: int, name: str) -> Iterator[Conversation]:
    """Yield conversations with tools that a template takes: several calls a turn, words with them, weights of 0."""
    drawn = random.Random(f"{seed} {name}")
    for _ in range(count):
        tools = [_tool(drawn, number) for number in range(drawn.randint(1, 3))]
        turns = [Message("system", _text(drawn))] if drawn.random() < 0.3 and name != "mistral" else []
        for _ in range(drawn.randint(1, 3)):
            turns += [Message("user", _text(drawn)), *_calls(drawn, tools, name), _answer(drawn)]
        if all(turn.weight == 0 for turn in turns if turn.role == "assistant"):
            turns[-1] = Message("assistant", _text(drawn))
        yield Conversation(tuple(turns), tools, parallel_tool_calls=drawn.choice([None, True]))


def _answer(drawn: random.Random) -> Message:
    return Message("assistant", _text(drawn), weight=drawn.choice([None, 1, 0]))


def _calls(drawn: random.Random, tools: Tools, name: str) -> Iterator[Message]:
    for _ in range(drawn.randint(0, 2)):
        alone = name in ONE_CALL
        calls = [_call(drawn, tools) for _ in range(1 if alone else drawn.randint(1, 3))]
        words = None if alone or name == "mistral" or drawn.random() < 0.5 else _text(drawn)
        yield Message("assistant", words, weight=drawn.choice([None, 0]), tool_calls=calls)
        for call in calls:
            yield Message("tool", json.dumps({"is": _text(drawn)}), tool_call_id=str(call["id"]))


def _call(drawn: random.Random, tools: Tools) -> dict[str, Json]:
    function: Any = drawn.choice(tools)["function"]
    arguments: Json = {_text(drawn): _value(drawn) for _ in range(drawn.randint(0, 3))}
    # As OpenAI has them, and as TRL's data sets do.
    given = json.dumps(arguments, ensure_ascii=drawn.random() < 0.5) if drawn.random() < 0.5 else arguments
    identity = "".join(drawn.choices("abcdefgh1234", k=9))
    return {"id": identity, "type": "function", "function": {"name": function["name"], "arguments": given}}


def _tool(drawn: random.Random, number: int) -> dict[str, Json]:
    keys = drawn.sample(["zone", "city", "a", "unit"], drawn.randint(0, 3))
    properties: dict[str, Json] = {key: {"type": "string", "description": _text(drawn)} for key in keys}
    # The keys are not in alphabetical order: a template writes them as they come.
    parameters: Json = {"type": "object", "required": list(keys[:1]), "properties": properties}
    function: Json = {"name": f"look_up_{number}", "description": _text(drawn), "parameters": parameters}
    return {"type": "function", "function": function}


def _value(drawn: random.Random) -> Json:
    plain: list[Json] = [_text(drawn), 3, -0.5, True, None, 10**12]
    return drawn.choice([*plain, [drawn.choice(plain)], {"in": drawn.choice(plain)}])


def _text(drawn: random.Random) -> str:
    return " ".join(drawn.choices(WORDS, k=drawn.randint(1, 4))).strip()


def parsed(row: Conversation) -> list[dict[str, Any]]:
    """Return a row's turns as transformers wants them: arguments are objects, absent keys are absent."""
    turns = [{key: getattr(turn, key) for key in turn.__struct_fields__} for turn in row.messages]
    for turn in turns:
        for call in turn["tool_calls"] or ():
            if isinstance(call["function"]["arguments"], str):
                decoded = json.loads(call["function"]["arguments"])
                turn["tool_calls"] = [
                    {**each, "function": {**each["function"], "arguments": decoded}} if each is call else each
                    for each in turn["tool_calls"]
                ]
    return [{key: value for key, value in turn.items() if value is not None} for turn in turns]
