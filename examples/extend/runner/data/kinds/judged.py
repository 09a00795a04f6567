"""A judged answer: a prompt, one answer, and whether it is a good one. An example of a kind of rows, in one file."""

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from runner.data.quality.checks import check_answer, check_order
from runner.data.rows import Learned, Oddity, Row, Text, Tools, Turns, numbered, text_of


class Judged(Row, frozen=True, gc=False, omit_defaults=True):
    """A prompt with one answer, good or bad: what people have who collect thumbs up and down."""

    label: ClassVar[str] = "answers judged good or bad"

    prompt: Turns
    reply: Turns
    good: bool
    tools: Tools | None = None

    @property
    def question(self) -> Turns:
        """The prompt."""
        return self.prompt

    @property
    def answer(self) -> Turns:
        """The answer, good or bad."""
        return self.reply

    def learned(self) -> Sequence[Learned]:
        """Return the prompt with its answer."""
        whole = self.prompt + self.reply
        return [Learned(whole, ((len(self.prompt), len(whole)),))]

    def targets(self) -> tuple[float, ...]:
        """Return 1 for a good answer, 0 for a bad one."""
        return (float(self.good),)

    def texts(self) -> Iterator[Text]:
        """Yield each turn's text."""
        yield from (Text(f"the prompt (turn {number})", text, False) for number, text in numbered(self.prompt))
        yield from (Text("the answer", text, True) for _, text in numbered(self.reply))

    def fields(self) -> dict[str, Any]:
        """Return the answer as the reference, if it is a good one."""
        return {"reference": text_of(self.reply)} if self.good else {}

    def check(self) -> tuple[Oddity, ...]:
        """Raise `BadRow` unless there is an answer to a prompt."""
        check_answer("judged", self.reply)
        return check_order(tuple(turn.role for turn in self.prompt))


KIND = Judged
