"""A tokenizer and a chat template as GGUF has them: byte-level BPE whose way of splitting text llama.cpp knows."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.errors import ModelError
from runner.models.chat.template import SPECIAL_TOKENS, ChatTemplate

if TYPE_CHECKING:
    from gguf import GGUFWriter

_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|"
    r"\s+(?!\S)|\s+"
)
_QWEN2 = _LLAMA3.replace("{1,3}", "")
_DIGITS = "digits"
SPLITS = {
    ((_GPT2,), False): "gpt-2",
    ((_DIGITS, _GPT2), False): "smollm",
    ((_LLAMA3,), True): "llama-bpe",
    ((_LLAMA3,), False): "smaug-bpe",
    ((_QWEN2,), False): "qwen2",
}
"""What llama.cpp calls a way of splitting: by the patterns, and whether a whole word in the vocabulary is not merged.

Source: `llm_tokenizer_bpe` in llama-vocab.cpp. What this table gets wrong shows in the proof: token by token.
"""


class _Splitter(msgspec.Struct):
    type: str
    pretokenizers: list["_Splitter"] = []
    pattern: dict[str, str] = {}
    individual_digits: bool = False
    use_regex: bool = True


class _Model(msgspec.Struct):
    type: str
    vocab: dict[str, int]
    merges: list[str | list[str]]
    ignore_merges: bool = False
    byte_fallback: bool = False


# Of a token of its own `id` and text are enough: llama.cpp strips no white space around it, as most tokenizers do not.
class _Added(msgspec.Struct):
    id: int
    content: str
    special: bool = False


class _Tokenizer(msgspec.Struct):
    model: msgspec.Raw
    pre_tokenizer: _Splitter | None = None
    added_tokens: list[_Added] = []


def add(writer: "GGUFWriter", folder: Path, size: int, ends: Sequence[int]) -> None:
    """Write tokenizer and chat template of a folder; `size` rows of embeddings, `ends` are the ids that end an answer.

    Raises `ModelError` for a tokenizer that llama.cpp would not split as here.
    """
    from gguf import TokenType

    found = msgspec.json.decode((folder / "tokenizer.json").read_bytes(), type=_Tokenizer)
    model, name = _bpe(found, folder)
    texts = {number: text for text, number in model.vocab.items()}
    # A control token is never the text of a user's message; a server would take it for one otherwise.
    kinds = dict.fromkeys(texts, TokenType.NORMAL)
    for each in found.added_tokens:
        texts[each.id] = each.content
        kinds[each.id] = TokenType.CONTROL if each.special else TokenType.USER_DEFINED
    # Embeddings are often padded to a round number: rows that no token has need a text of their own all the same.
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(name)
    writer.add_token_list([texts.get(number, f"[PAD{number}]") for number in range(size)])
    writer.add_token_types([kinds.get(number, TokenType.UNUSED) for number in range(size)])
    # Older files have merges as one string, newer ones as pairs; byte-level tokens hold no space.
    writer.add_token_merges([each if isinstance(each, str) else " ".join(each) for each in model.merges])
    _add_special(writer, folder, {text: number for number, text in texts.items()}, ends)
    writer.add_chat_template(ChatTemplate(folder).source)


def _add_special(writer: "GGUFWriter", folder: Path, ids: dict[str, int], ends: Sequence[int]) -> None:
    path = folder / "tokenizer_config.json"
    settings: dict[str, object] = json.loads(path.read_text("utf-8")) if path.exists() else {}
    for key in SPECIAL_TOKENS:
        token = settings.get(key)
        number = ids.get(str(token.get("content") if isinstance(token, dict) else token))
        if key == "eos_token" and ends and number not in ends:
            # What ended the run's answers, and not the tokenizer's: in some models they differ.
            number = ends[0]
        if number is not None:
            getattr(writer, f"add_{key}_id")(number)
    # The chat template writes what begins a text; a server that added it would begin twice.
    writer.add_add_bos_token(False)


def _bpe(found: _Tokenizer, folder: Path) -> tuple[_Model, str]:
    try:
        model = msgspec.json.decode(found.model, type=_Model)
    except msgspec.ValidationError as error:
        raise ModelError(f"format: gguf needs a BPE tokenizer; that of {folder.name} is another ({error}).") from None
    splits = tuple(_patterns(found.pre_tokenizer)) if found.pre_tokenizer else ()
    # By what is in the file, not by the model's name: a tuned model may have another name and tokenizer.
    name = SPLITS.get((splits, model.ignore_merges))
    if model.type != "BPE" or model.byte_fallback or name is None:
        raise ModelError(
            f"format: gguf knows no name for how the tokenizer of {folder.name} splits text; allowed: byte-level BPE "
            f"as in {', '.join(SPLITS.values())}; use format=merged, and llama.cpp's convert_hf_to_gguf.py."
        )
    return model, name


def _patterns(splitter: _Splitter) -> list[str]:
    """Return the patterns that a text is split by, one after the other."""
    if splitter.type == "ByteLevel":
        return [_GPT2] if splitter.use_regex else []
    if splitter.type == "Digits" and splitter.individual_digits:
        return [_DIGITS]
    if splitter.type == "Sequence":
        return [pattern for each in splitter.pretokenizers for pattern in _patterns(each)]
    return [splitter.pattern.get("Regex", splitter.type)]
