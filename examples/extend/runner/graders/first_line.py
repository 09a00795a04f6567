"""first_line: is the first line of the answer as short as a headline? An example of a grader, one file and one YAML."""

from collections.abc import Iterable
from typing import ClassVar

from runner.graders import Grade, Grader, Subject


class FirstLine(Grader, frozen=True, kw_only=True):
    """1 where the first line has at most `words` words, less in proportion where it has more."""

    type: ClassVar[str] = "first_line"

    words: int = 8

    def problems(self) -> Iterable[str]:
        """Return why no answer could have the best score."""
        if self.words < 1:
            yield f"words: got {self.words}; allowed: 1 or more."

    def grade(self, subject: Subject) -> Grade:
        """Return the score, with the number of words as the reason."""
        lines = subject.sample.text.splitlines()
        count = len(lines[0].split()) if lines else 0
        if not count:
            return Grade(0.0, "there is no first line")
        return Grade(min(1.0, self.words / count), f"{count} words")


GRADER = FirstLine
