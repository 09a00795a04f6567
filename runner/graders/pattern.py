"""Is an answer in the style asked for, and still a good answer? A rule that can be stated, and so disputed.

An answer counts if all of this holds:

1. it ended by itself, not at the token limit;
2. the whole of it matches the style, a regular expression, and it is not empty;
3. no five words in a row occur twice in it;
4. it is about the question: it shares a word of three letters or more with it, leaving out the commonest,
   compared by the first four letters, so that `close` and `closer` are the same.

An empty, repeated, cut-off or unrelated answer fails, however well it opens; each of these rules can be switched off.
"""

import re
from collections.abc import Iterable
from typing import ClassVar

from runner.graders import Grade, Grader, Subject


class Pattern(Grader, frozen=True, kw_only=True):
    """1 if the whole answer, without the space around it, matches `pattern` and none of the switched-on rules fails."""

    type: ClassVar[str] = "pattern"

    pattern: str
    refuse_empty: bool = True
    refuse_cut_off: bool = True
    refuse_repeated: bool = True
    refuse_unrelated: bool = True

    def problems(self) -> Iterable[str]:
        """Return why the pattern is no regular expression."""
        try:
            re.compile(self.pattern)
        except re.error as error:
            yield f"pattern: got '{self.pattern}', which is no regular expression: {error}."

    def grade(self, subject: Subject) -> Grade:
        """Return 1, or 0 with what is wrong in a few words."""
        fault = self._fault(subject)
        return Grade(0.0 if fault else 1.0, fault)

    def _fault(self, subject: Subject) -> str:
        answer = subject.sample.text
        if self.refuse_cut_off and not subject.sample.ended:
            return "cut off"
        # The whole answer: one that continues after the style has not kept to it.
        if not re.fullmatch(self.pattern, answer.strip()):
            return "not in the style"
        if self.refuse_empty and not answer.strip():
            return "empty"
        words = re.findall(r"\w+", answer.lower())
        runs = [tuple(words[index : index + 5]) for index in range(len(words) - 4)]
        if self.refuse_repeated and len(set(runs)) < len(runs):
            return "repeats itself"
        if self.refuse_unrelated and not _stems(subject.question) & _stems(answer):
            return "not about the question"
        return ""


def _stems(text: str) -> set[str]:
    return {word[:4] for word in re.findall(r"[^\W\d_]{3,}", text.lower()) if word not in _COMMON}


_COMMON = {
    *("the", "and", "but", "for", "not", "you", "your", "are", "was", "how", "why", "what", "when", "where", "who"),
    *("which", "with", "that", "this", "they", "them", "then", "than", "its", "have", "has", "had", "does", "did"),
    *("can", "will", "would", "should", "could", "from", "into", "about", "out", "any", "all", "one", "our", "get"),
}

GRADER = Pattern
