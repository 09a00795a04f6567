"""Is an answer in the style asked for, and still a good answer? A rule that can be stated, and so disputed.

An answer counts if all of this holds:

1. it ended by itself, not at the token limit;
2. the whole of it matches the style, a regular expression (`dataset.style`);
3. no five words in a row occur twice in it;
4. it is about the question: it shares a word of three letters or more with it, leaving out the commonest,
   compared by the first four letters, so that `close` and `closer` are the same.

An empty, repeated, cut-off or unrelated answer fails, however well it opens.
"""

import re


def fault(answer: str, ended: bool, question: str, style: str) -> str:
    """Return why an answer does not count, in a few words; the empty string if it does."""
    if not ended:
        return "cut off"
    if not re.fullmatch(style, answer.strip()):
        return "not in the style"
    words = re.findall(r"\w+", answer.lower())
    runs = [tuple(words[index : index + 5]) for index in range(len(words) - 4)]
    if len(set(runs)) < len(runs):
        return "repeats itself"
    if not _stems(question) & _stems(answer):
        return "not about the question"
    return ""


def _stems(text: str) -> set[str]:
    return {word[:4] for word in re.findall(r"[^\W\d_]{3,}", text.lower()) if word not in _COMMON}


_COMMON = {
    *("the", "and", "but", "for", "not", "you", "your", "are", "was", "how", "why", "what", "when", "where", "who"),
    *("which", "with", "that", "this", "they", "them", "then", "than", "its", "have", "has", "had", "does", "did"),
    *("can", "will", "would", "should", "could", "from", "into", "about", "out", "any", "all", "one", "our", "get"),
}
