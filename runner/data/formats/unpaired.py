"""Unpaired judgements: a row of any shape of conversations, with a `label` (or `kto_tag`) that judges its last answer.

Sources: https://huggingface.co/docs/trl/dataset_formats#unpaired-preference, and the `kto_tag` of
https://github.com/hiyouga/LLaMA-Factory/blob/main/data/README.md#kto-dataset
"""

import msgspec

from runner.data.formats import Format, Text, alpaca, chat, sharegpt, trl_completion
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.judged import Judged
from runner.data.quoting import shown
from runner.data.rows import BadRow, Message, Tools

SHAPES = (chat.FORMAT, trl_completion.FORMAT, alpaca.FORMAT, sharegpt.FORMAT)
JUDGEMENTS = ("label", "kto_tag")
"""Keys that judge an answer; a row has one of them."""
# CSV has texts in place of true and false, and some sets the words of the paper.
WORDS = {"true": True, "1": True, "desirable": True, "false": False, "0": False, "undesirable": False}
Label = bool | int | float | str | None


class Raw(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """A row as it is in the file: a judgement, and the keys of one of `SHAPES`."""

    label: Label = None
    kto_tag: Label = None
    messages: tuple[Message, ...] | None = None
    prompt: Text | None = None
    completion: Text | None = None
    instruction: str | None = None
    input: str | None = None
    output: str | None = None
    history: tuple[tuple[str, str], ...] | None = None
    conversations: tuple[sharegpt.Turn, ...] | None = None
    system: str | None = None
    tools: Tools | str | None = None
    parallel_tool_calls: bool | None = None


def to_row(raw: Raw) -> Judged:
    """Return the last answer with its judgement. Raises `BadRow` where either is missing."""
    good = judgement(raw.kto_tag if raw.label is None else raw.label)
    raw.tools = sharegpt.tools(raw.tools)
    # Raw has the attributes of every shape, so that each reads its own from it.
    for shape in SHAPES:
        if all(getattr(raw, key) is not None for key in shape.keys):
            found = shape.to_row(raw)
            assert isinstance(found, Conversation)
            return Judged(found.question, found.answer, good, found.tools, found.parallel_tool_calls)
    known = "; ".join(", ".join(shape.keys) for shape in SHAPES)
    raise BadRow(
        "no-answer", f"the judgement has no answer next to it; it needs the keys of a shape: {known}; add them"
    )


def judgement(value: Label) -> bool:
    """Say whether an answer is good. Raises `BadRow` where the label says neither."""
    found = judged(value)
    if found is None:
        raise BadRow(
            "label", f"the label is {shown(repr(value))}; allowed: true or false ({', '.join(WORDS)}); repair it"
        )
    return found


def judged(value: object) -> bool | None:
    """Say whether a value of a key that may judge calls an answer good; None where it says neither."""
    # 1.0 and 0.0: what pandas makes of a column in which some are missing.
    return WORDS.get(str(value).strip().lower().removesuffix(".0"))


FORMAT = Format("unpaired", "judged", Raw, to_row, one_of=JUDGEMENTS)
