"""What seldom belongs into a text that a model learns from: rests of templates, transcripts and markup.

A rule's pattern is slow to search for (2 to 3 s a million rows), so a block of rows is first searched, in its
canonical bytes, for the marks without which no rule can be broken: numpy finds each distinct first byte (0.1 s), and
of those with a right second byte there are few. Only where a mark is found are texts looked at.
"""

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import accumulate
from typing import TYPE_CHECKING, Literal, NamedTuple

import msgspec

from runner.data.quoting import shown
from runner.data.rows import Oddity, Row

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

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


def odd_rows(rows: Sequence[Row], canonical: bytes, lines: Sequence[bytes]) -> Iterator[tuple[int, Oddity]]:
    """Yield what is odd in the texts of rows, each with the row's place.

    `canonical` is all their `lines`, each followed by LF.
    """
    found = sorted(_marks(canonical))
    ends = list(accumulate(len(line) + 1 for line in lines)) if found else []
    marked: dict[int, set[bytes]] = {}
    for position, mark in found:
        marked.setdefault(bisect_right(ends, position), set()).add(mark)
    for row, marks in marked.items():
        yield from ((row, odd) for odd in odd_texts(rows[row], [rule for rule in RULES if rule.marks & marks]))


def _marks(canonical: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the marks in canonical lines, each with its position."""
    import numpy as np

    text = np.frombuffer(canonical, np.uint8)
    for search in _searches():
        if search.first not in canonical:
            continue
        if search.second is None:
            found = np.flatnonzero(text[:-2] == search.first[0])
            found = found[search.seconds[text[found + 1]]]
        else:
            found = pairs(text, search.first[0], search.second)
        if not len(found):
            continue
        found = found[search.thirds[text[found + 2]]]
        if search.first == BACKSLASH[:1]:
            # A backslash after one, which has none before it, stands for itself: formulas are full of `\\\\frac`.
            found = found[(text[found - 1] != search.first[0]) | (text[found - 2] == search.first[0])]
        for at in found.tolist():
            # One mark may begin another one (`<<` and `<<SYS>>`).
            marks = [mark for size in search.sizes if (mark := canonical[at : at + size]) in search.marks]
            if marks and not _is_escaped(canonical, at):
                yield from ((at, mark) for mark in marks)


def pairs(text: "NDArray[np.uint8]", first: int, second: int) -> "NDArray[np.int64]":
    """Return where a byte is followed by another one, but for the last three bytes of a text.

    numpy compares 64 bytes at a time: a third of the time of `in`, and a sixth of that of `re`.
    """
    import numpy as np

    found = text[:-3] == first
    found &= text[1:-2] == second
    return np.flatnonzero(found)


def _is_escaped(canonical: bytes, at: int) -> bool:
    """Say whether what begins at a position is a backslash that an odd number of backslashes is before."""
    start = at
    while canonical[start - 1 : start] == BACKSLASH[:1]:
        start -= 1
    return (at - start) % 2 == 1 and canonical[at : at + 1] == BACKSLASH[:1]


class _Search(NamedTuple):
    """Marks that have the first byte in common; the second if all have that in common, too; tables of what follows."""

    first: bytes
    second: int | None
    seconds: "NDArray[np.bool_]"
    thirds: "NDArray[np.bool_]"
    sizes: tuple[int, ...]
    marks: frozenset[bytes]


@cache
def _searches() -> tuple[_Search, ...]:
    """Return how the marks of all rules are looked for: by their first bytes, which numpy finds in no time."""
    by_first: dict[bytes, list[bytes]] = defaultdict(list)
    for mark in sorted(frozenset[bytes]().union(*(rule.marks for rule in RULES))):
        by_first[mark[:1]].append(mark)
    searches = []
    for first, marks in by_first.items():
        seconds, thirds = _table(marks, 1), _table(marks, 2)
        [*only] = seconds.nonzero()[0].tolist()
        second = only[0] if len(only) == 1 else None
        sizes = tuple(sorted(set(map(len, marks))))
        searches.append(_Search(first, second, seconds, thirds, sizes, frozenset(marks)))
    return tuple(searches)


def _table(marks: Sequence[bytes], place: int) -> "NDArray[np.bool_]":
    """Return for each byte whether it can be at a place of a mark, or follow a shorter one."""
    import numpy as np

    table = np.full(256, any(len(mark) <= place for mark in marks), np.bool_)
    table[[mark[place] for mark in marks if len(mark) > place]] = True
    return table


def odd_texts(row: Row, rules: Sequence[TextRule] = RULES) -> Iterator[Oddity]:
    """Yield what is odd in each text of a row by some rules."""
    for where, text, is_answer in row.texts():
        for rule in rules:
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
