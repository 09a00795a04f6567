"""A problem: a prompt, and what a grader compares an answer with. It has no answer to imitate."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

import msgspec

from runner.data.json_value import Json
from runner.data.quality.checks import asks, check_order
from runner.data.quality.tool_calls import check_calls
from runner.data.rows import BadRow, Learned, Oddity, Prompt, Row, Text, Tools, Turns, numbered, on_the_wire


class Problem(Row, frozen=True, gc=False, omit_defaults=True):
    """A prompt, and the other keys of its row by name, which graders find as `{{ item.KEY }}`."""

    label: ClassVar[str] = "prompts with reference fields for a grader"
    format: ClassVar[str] = "problem"

    prompt: Turns
    reference: dict[str, Json] = msgspec.field(default_factory=dict)
    tools: Tools | None = None

    @classmethod
    def of(cls, row: Row) -> Self | None:
        """Return the prompt of a row of any kind, with its answers as what a grader may compare with."""
        # Any row is a problem without its answers, which become the reference: evaluation asks what training holds out.
        return row if isinstance(row, cls) else cls(row.question, row.fields(), row.tools)

    @property
    def given(self) -> Prompt:
        """What a model is given: the prompt, and the tools that it may call."""
        return Prompt(self.prompt, self.tools)

    @property
    def question(self) -> Turns:
        """The prompt."""
        return self.prompt

    @property
    def answer(self) -> Turns:
        """None: a problem is answered by the model."""
        return ()

    def learned(self) -> Sequence[Learned]:
        """Return the prompt, of which nothing is learned."""
        return [Learned(self.prompt, ())]

    def texts(self) -> Iterator[Text]:
        """Yield each turn's text."""
        return (Text(f"the prompt (turn {number})", text, False) for number, text in numbered(self.prompt))

    def wire(self) -> object:
        """Return `messages` and the other keys next to them.

        Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reinforcement-fine-tuning
        """
        tools = {"tools": self.tools} if self.tools else {}
        return {"messages": on_the_wire(self.prompt), **self.reference, **tools}

    def fields(self) -> dict[str, Json]:
        """Return the other keys of the row."""
        return self.reference

    def check(self) -> tuple[Oddity, ...]:
        """Raise `BadRow` unless the prompt asks for an answer."""
        if not self.prompt or not asks(self.prompt[-1]):
            raise BadRow("no-prompt", "the prompt is empty; an answer must reply to something; add it")
        oddities = check_order(tuple([turn.role for turn in self.prompt]))
        if self.prompt[-1].role not in ("user", "tool"):
            raise BadRow(
                "role-order",
                f"the prompt ends with a turn of the {self.prompt[-1].role}; it must end with the user's or a tool's; "
                "remove that turn",
            )
        return oddities + check_calls([self.prompt], self.tools)


KIND = Problem
