"""A judged answer: a prompt, one answer, and whether it is a good one: what thumbs up and down leave behind."""

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar

from runner.data.json_value import Json
from runner.data.kinds.preference import Pair, spoken
from runner.data.quality.checks import asks, check_answer, check_order, has_text
from runner.data.quality.tool_calls import check_calls
from runner.data.rows import BadRow, Learned, Oddity, Row, Text, Tools, Turns, numbered, text_of


class Judged(Row, frozen=True, gc=False, omit_defaults=True):
    """A prompt with one answer, good or bad."""

    label: ClassVar[str] = "answers judged good or bad"
    only_where_wanted: ClassVar[bool] = True
    sides: ClassVar[Mapping[bytes, str]] = {b'"good":true': "good", b'"good":false': "bad"}
    split_of: ClassVar[frozenset[str]] = frozenset({"preference"})

    prompt: Turns
    reply: Turns
    good: bool
    tools: Tools | None = None
    parallel_tool_calls: bool | None = None

    @classmethod
    def parts(cls, row: Row) -> Sequence["Judged"]:
        """Return a pair as a good and a bad answer."""
        # Both are from one prompt, so that they fall to the same split.
        if not isinstance(row, Pair):
            return super().parts(row)
        answers = ((row.chosen, True), (row.rejected, False))
        return [cls(row.prompt, each, good, row.tools, row.parallel_tool_calls) for each, good in answers]

    @property
    def question(self) -> Turns:
        """The prompt."""
        return self.prompt

    @property
    def answer(self) -> Turns:
        """The answer, good or bad."""
        return self.reply

    def learned(self) -> Sequence[Learned]:
        """Return the prompt with its answer, of which what tools say, and turns with `weight: 0`, are not learned."""
        return [Learned(self.prompt + self.reply, spoken(self.reply, len(self.prompt)))]

    def targets(self) -> tuple[float, ...]:
        """Return 1 for a good answer, 0 for a bad one."""
        return (float(self.good),)

    def texts(self) -> Iterator[Text]:
        """Yield each turn's text."""
        yield from (Text(f"the prompt (turn {number})", text, False) for number, text in numbered(self.prompt))
        yield from (Text("the answer", text, True) for _, text in numbered(self.reply))

    def fields(self) -> dict[str, Json]:
        """Return the answer and its judgement; a good answer is the reference."""
        answer = text_of(self.reply)
        # A bad answer is nothing to compare with: a grader that asks for `reference` says so by file and line.
        found: dict[str, Json] = {"reference": answer} if self.good else {}
        return found | {"answer": answer, "good": self.good}

    def check(self) -> tuple[Oddity, ...]:
        """Raise `BadRow` unless there is an answer to a prompt."""
        if not self.prompt or not asks(self.prompt[-1]):
            raise BadRow("no-prompt", "the prompt is empty; the answer must reply to something; add it")
        check_answer("judged", self.reply)
        return check_order(tuple([turn.role for turn in self.prompt])) + check_calls(
            [self.prompt + self.reply], self.tools
        )

    def is_plain(self) -> bool:
        """Say whether it is a question of the user and an answer."""
        # Most judgements are collected a question at a time; any other row goes through `check`.
        if len(self.prompt) != 1 or len(self.reply) != 1:
            return False
        question, answer = self.prompt[0], self.reply[0]
        roles = question.role == "user" and answer.role == "assistant" and not answer.tool_calls
        return roles and answer.weight != 0 and has_text(question.content) and has_text(answer.content)


KIND = Judged
