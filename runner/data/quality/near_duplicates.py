"""Which texts are nearly the same: by the character sequences that they share, so that a comma makes no new prompt.

Exact, and quick without sampling: two texts that are similar enough share one of their rarest sequences, so only
those that do are compared (prefix filtering: Chaudhuri et al. 2006, doi:10.1109/ICDE.2006.9).
"""

import math
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Sequence
from itertools import chain

CHARACTERS = 5
"""Of a sequence: short enough for prompts of a few words, long enough that few texts share one by chance."""
TEMPLATE_SHARE, TEMPLATE_TEXTS = 0.05, 10
"""What occurs in more texts than both, an instruction before each question say, does not make two texts alike."""


def near_duplicates(texts: Sequence[str], least: float) -> dict[int, int]:
    """Return the place of each text that is nearly the same as one before it, and the place of that one.

    Nearly the same are texts with the same numbers that share at least `least` (above 0, at most 1) of their sequences.
    """
    every = [_sequences(text) for text in texts]
    counts = Counter(chain.from_iterable(every))
    template = {each for each, count in counts.items() if count > max(TEMPLATE_TEXTS, TEMPLATE_SHARE * len(texts))}
    # Where all is template, texts are compared by all that they have.
    sets = [each - template or each for each in every]
    by_rare: dict[str, list[int]] = defaultdict(list)
    found: dict[int, int] = {}
    for place, own in enumerate(sets):
        rarest = sorted(own, key=lambda each: (counts[each], each))[: len(own) - math.ceil(least * len(own)) + 1]
        candidates = sorted({other for each in rarest for other in by_rare[each]})
        same = (other for other in candidates if _numbers(texts[other]) == _numbers(texts[place]))
        first = next((other for other in same if _shared(sets[other], own) >= least), None)
        if first is not None:
            found[place] = first
            continue
        for each in rarest:
            by_rare[each].append(place)
    return found


def similarity(one: str, other: str) -> float:
    """Return the share of their sequences that two texts have in common, from 0 to 1 (Jaccard's index)."""
    return _shared(_sequences(one), _sequences(other))


def _sequences(text: str) -> set[str]:
    # Case, punctuation and spaces are left out, which is where copies of a prompt differ; letters of any language stay.
    plain = "".join(re.findall(r"\w+", unicodedata.normalize("NFKC", text).casefold()))
    return {plain[at : at + CHARACTERS] for at in range(max(1, len(plain) - CHARACTERS + 1))}


def _numbers(text: str) -> list[str]:
    # Two sums in the same words are two problems.
    return re.findall(r"\d+", text)


def _shared(one: set[str], other: set[str]) -> float:
    return len(one & other) / len(one | other)
