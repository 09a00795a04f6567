"""What seldom belongs into a text that a model learns from: rests of templates, transcripts and markup.

A rule's pattern is slow to search for (2 to 3 s a million rows), so a block of rows is first searched, in its
canonical bytes, for the marks without which no rule can be broken: once for each distinct first byte, to
which `re` skips quickly (0.2 s). Only where one is found are texts looked at.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import msgspec

from runner.data.rows import Message, Oddity, Pair, Row

INVISIBLE = {
    "control-character": [*map(chr, (*range(9), 11, 12, *range(14, 32), *range(127, 160)))],
    "no-break-space": ["\u00a0"],
    "zero-width-space": ["\u200b"],
    "line-separator": ["\u2028", "\u2029"],
    "byte-order-mark": ["\ufeff"],
    "replacement-character": ["\ufffd"],
}
"""Characters that a reader does not see, or that stand for ones that were lost; all but tab, LF and CR."""


@dataclass(frozen=True)
class TextRule:
    """What to look for in texts, or in answers only.

    The canonical bytes (JSON, UTF-8) of any text that breaks the rule hold one of its `marks`.
    """

    name: str
    pattern: re.Pattern[str]
    marks: frozenset[bytes]
    advice: str
    answers_only: bool = False


def _markup(name: str, pattern: str, marks: str, advice: str, answers_only: bool = False) -> TextRule:
    encoded = frozenset(mark.encode() for mark in marks.split())
    return TextRule(name, re.compile(pattern), encoded, advice, answers_only)


def _invisible(name: str, characters: list[str]) -> TextRule:
    encoded = [msgspec.json.encode(each)[1:-1] for each in characters]
    marks = frozenset(each[:2] if each.startswith(b"\\") else each for each in encoded)
    advice = "a reader does not see it, but the model learns it: remove or replace it"
    return TextRule(name, re.compile(f"[{''.join(characters)}]"), marks, advice)


RULES = (
    _markup(
        "transcript-marker",
        r"Human:|Assistant:",
        "Human: Assistant:",
        "a transcript may not have been cut into its turns: remove it unless it is meant",
        answers_only=True,
    ),
    _markup(
        "placeholder", r"\{\{\s*[\w.-]+\s*\}\}", "{{", "a template was not filled in: put the value there"
    ),
    _markup("calculator-mark", r"<<[^<>\n]*=[^<>\n]*>>", "<<", "the model learns to write it: remove it"),
    _markup(
        "special-token",
        r"<\|[\w-]+\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>",
        "<| NST] <<SYS>> <</SYS>> <s> </s> <start_of <end_of",
        "chat templates add these themselves: remove it",
    ),
    *(_invisible(name, characters) for name, characters in INVISIBLE.items()),
)


def _gates(rules: tuple[TextRule, ...]) -> list[tuple[bytes, re.Pattern[bytes]]]:
    """Return one pattern for each distinct first byte of the rules' marks."""
    rests: dict[bytes, set[bytes]] = defaultdict(set)
    for mark in frozenset[bytes]().union(*(rule.marks for rule in rules)):
        rests[mark[:1]].add(re.escape(mark[1:]))
    return [
        (first, re.compile(re.escape(first) + b"(?=" + b"|".join(sorted(ends)) + b")"))
        for first, ends in sorted(rests.items())
    ]


GATES = _gates(RULES)


def may_be_odd(canonical: bytes) -> bool:
    """Say whether rows with these canonical bytes may break a rule; False is certain."""
    return any(first in canonical and gate.search(canonical) for first, gate in GATES)


def odd_texts(row: Row) -> Iterator[Oddity]:
    """Yield what is odd in each text of a row."""
    for where, text, is_answer in _texts(row):
        for rule in RULES:
            found = rule.pattern.findall(text) if is_answer or not rule.answers_only else []
            if found:
                times = "" if len(found) == 1 else f" ({len(found)} times)"
                yield Oddity(rule.name, f"{_shown(found[0])}{times} stands in {where}; {rule.advice}")


def _texts(row: Row) -> Iterator[tuple[str, str, bool]]:
    """Yield the texts of a row: where it stands, the text, and whether it is learned as an answer."""
    if isinstance(row, Pair):
        yield from ((f"the prompt (turn {place})", text, False) for place, text in _numbered(row.prompt))
        yield from (("the chosen answer", text, True) for _, text in _numbered(row.chosen))
        yield from (("the rejected answer", text, True) for _, text in _numbered(row.rejected))
    else:
        for place, text in _numbered(row.messages):
            yield f"turn {place}", text, row.messages[place - 1].role == "assistant"


def _numbered(messages: tuple[Message, ...]) -> Iterator[tuple[int, str]]:
    return ((place, each.content) for place, each in enumerate(messages, 1) if isinstance(each.content, str))


def _shown(found: str) -> str:
    return f"`{found}`" if found.isprintable() and found != "\ufffd" else f"U+{ord(found):04X}"
