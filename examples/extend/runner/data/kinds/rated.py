"""A rated answer: a prompt, one answer, and how good it is, 0 to 1. An example of a kind of rows, in one file."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from runner.data.quality.checks import check_answer, check_order
from runner.data.rows import BadRow, Learned, Oddity, Row, Text, Tools, Turns, numbered, text_of


class Rated(Row, frozen=True, gc=False, omit_defaults=True):
    """A prompt with one answer and its score: what people have who collect stars."""

    label: ClassVar[str] = "answers with a score"

    prompt: Turns
    reply: Turns
    score: float
    tools: Tools | None = None

    @property
    def question(self) -> Turns:
        """The prompt."""
        return self.prompt

    @property
    def answer(self) -> Turns:
        """The answer, however good."""
        return self.reply

    def learned(self) -> Sequence[Learned]:
        """Return the prompt with its answer."""
        whole = self.prompt + self.reply
        return [Learned(whole, ((len(self.prompt), len(whole)),))]

    def targets(self) -> tuple[float, ...]:
        """Return the score."""
        return (self.score,)

    def texts(self) -> Iterator[Text]:
        """Yield each turn's text."""
        yield from (Text(f"the prompt (turn {number})", text, False) for number, text in numbered(self.prompt))
        yield from (Text("the answer", text, True) for _, text in numbered(self.reply))

    def fields(self) -> dict[str, Any]:
        """Return the answer with its score."""
        return {"answer": text_of(self.reply), "score": self.score}

    def check(self) -> tuple[Oddity, ...]:
        """Raise `BadRow` unless there is an answer to a prompt, with a score from 0 to 1."""
        if not 0 <= self.score <= 1:
            raise BadRow("score", f"the score is {self.score:g}; allowed: 0 to 1; scale it")
        check_answer("rated", self.reply)
        return check_order(tuple(turn.role for turn in self.prompt))


KIND = Rated
