"""What seldom belongs into a text that a model learns from: rests of templates, transcripts and markup.

A rule's pattern is slow to search for (2 to 3 s a million rows), so a block of rows is first searched, in its
canonical bytes, for the marks without which no rule can be broken: once for each distinct first byte, to
which `re` skips quickly (0.2 s). Only where one is found are texts looked at.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec

from runner.data.quoting import shown
from runner.data.rows import Oddity, Row

INVISIBLE = {
    "control-character": [*map(chr, (*range(9), 11, 12, *range(14, 32), *range(127, 160)))],
    "no-break-space": ["\u00a0"],
    "zero-width-space": ["\u200b"],
    "line-separator": ["\u2028", "\u2029"],
    "byte-order-mark": ["\ufeff"],
    "replacement-character": ["\ufffd"],
}
"""Characters that a reader does not see, or that stand for ones that were lost; all but tab, LF and CR."""
BACKSLASH = rb"\\"
"""A backslash in JSON."""
Texts = Literal["all", "answers", "prompts"]
_ESCAPE = re.compile(rb"\\[bfu]")


@dataclass(frozen=True)
class TextRule:
    """What to look for in all texts, or in answers or the others only.

    The canonical bytes (JSON, UTF-8) of any text that breaks the rule hold one of its `marks`.
    """

    name: str
    pattern: re.Pattern[str]
    marks: frozenset[bytes]
    advice: str
    texts: Texts = "all"


def _markup(name: str, pattern: str, marks: str, advice: str, texts: Texts = "all") -> TextRule:
    encoded = frozenset(mark.encode() for mark in marks.split())
    return TextRule(name, re.compile(pattern), encoded, advice, texts)


def _invisible(name: str, characters: list[str]) -> TextRule:
    # As JSON has it: control characters are escaped there, all others are UTF-8.
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
        texts="answers",
    ),
    _markup(
        "transcript",
        r"(?:^|\n)[ \t]*(?:Human|User):(?:[^\n]*+\n){1,50}?[ \t]*Assistant:",  # the bound keeps the search linear
        "Assistant:",
        "a transcript is one turn here and may have to be cut into its turns: give them as messages unless it is meant",
        texts="prompts",
    ),
    _markup("placeholder", r"\{\{\s*[\w.-]+\s*\}\}", "{{", "a template was not filled in: put the value there"),
    _markup("calculator-mark", r"<<[^<>\n=]*+=[^<>\n]*+>>", "<<", "the model learns to write it: remove it"),
    _markup(
        "special-token",
        # ChatML and Llama 3, Llama 2, sentencepiece's own, Gemma.
        r"<\|[\w-]+\|>|\[/?INST\]|<</?SYS>>|</?s>|<(?:start|end)_of_turn>",
        "<| INST] <<SYS>> <</SYS>> <s> </s> <start_of <end_of",
        "chat templates add these themselves: remove it",
    ),
    *(_invisible(name, characters) for name, characters in INVISIBLE.items()),
)


def odd_rows(rows: Sequence[Row], canonical: bytes) -> Iterator[tuple[int, Oddity]]:
    """Yield what is odd in the texts of rows, each with the row's place; `canonical` is all their lines."""
    row = before = 0
    looked_at = -1
    for position in sorted(_positions(canonical)):
        row += canonical.count(b"\n", before, position)
        before = position
        if row != looked_at:
            yield from ((row, odd) for odd in odd_texts(rows[row]))
            looked_at = row


def _positions(canonical: bytes) -> Iterator[int]:
    """Yield the positions of marks in canonical lines."""
    for hint, marks in _SEARCHES:
        if hint == BACKSLASH[:1] and not _has_escape(canonical):
            continue
        if hint in canonical if len(hint) == 1 else holds(canonical, hint):
            yield from (found.start() for found in marks.finditer(canonical) if found[0] != BACKSLASH)


def _has_escape(canonical: bytes) -> bool:
    """Say whether there is an escaped control character.

    Formulas are full of backslashes that stand for themselves (`\\\\frac`): without these, few are left to look at.
    """
    return bool(_ESCAPE.search(canonical)) and bool(_ESCAPE.search(canonical.replace(BACKSLASH, b"")))


def _searches(marks: Iterable[bytes]) -> Iterator[tuple[bytes, re.Pattern[bytes]]]:
    """Yield patterns that find all marks between them, each with bytes without which it finds nothing.

    Marks that begin with a common byte are searched one by one, and only if their last four or two bytes are
    there. Others are searched together by their first byte, to which `re` skips. A backslash that stands for
    itself is passed as a whole, so that what follows it is not taken for its escape.
    """
    by_first: dict[bytes, list[bytes]] = defaultdict(list, {BACKSLASH[:1]: [re.escape(BACKSLASH[1:])]})
    for mark in sorted(marks):
        if re.match(rb"[A-Za-z{]", mark):
            yield mark[-4:] if len(mark) >= 4 else mark[-2:], re.compile(re.escape(mark))
        else:
            by_first[mark[:1]].append(re.escape(mark[1:]))
    for first, rests in by_first.items():
        yield first, re.compile(re.escape(first) + b"(?:" + b"|".join(rests) + b")")


_SEARCHES = tuple(_searches(frozenset[bytes]().union(*(rule.marks for rule in RULES))))


def holds(text: bytes, word: bytes) -> bool:
    """Say whether two or four bytes are in a text: numpy compares them whole, in a quarter of the time of `in`."""
    import numpy as np

    size = len(word)
    integer = np.dtype(f"=u{size}")
    wanted = np.frombuffer(word, integer)[0]
    shifted = (np.frombuffer(text, integer, (len(text) - shift) // size, shift) for shift in range(size))
    return len(text) >= size and any((words == wanted).any() for words in shifted)


def odd_texts(row: Row) -> Iterator[Oddity]:
    """Yield what is odd in each text of a row."""
    for where, text, is_answer in row.texts():
        for rule in RULES:
            wanted = rule.texts == "all" or is_answer == (rule.texts == "answers")
            found = rule.pattern.findall(text) if wanted else []
            if found:
                times = "" if len(found) == 1 else f" ({len(found)} times)"
                yield Oddity(rule.name, f"{_shown(found[0])}{times} is in {where}; {rule.advice}")


def _shown(found: str) -> str:
    """Return what was found in visible characters: `U+00A0` alone, an escape such as `\\n` within a longer text."""
    if len(found) == 1:
        return f"U+{ord(found):04X}"
    return f"`{shown(found, 80)}`"
