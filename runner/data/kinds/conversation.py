"""A conversation: chat data, of which the assistant's turns are learned."""

from collections.abc import Iterator, Sequence
from typing import ClassVar, Self

from runner.data.json_value import Json
from runner.data.kinds.preference import Pair
from runner.data.quality.checks import asks, check_order, has_text
from runner.data.quality.tool_calls import check_calls
from runner.data.rows import BadRow, Learned, Oddity, Row, Text, Tools, Turns, numbered, on_the_wire, text_of


class Conversation(Row, frozen=True, gc=False, omit_defaults=True, forbid_unknown_fields=True):
    """A whole conversation; the assistant's turns are what is learned."""

    label: ClassVar[str] = "conversations"
    every_answer_is_good: ClassVar[bool] = True

    messages: Turns
    tools: Tools | None = None
    parallel_tool_calls: bool | None = None

    @classmethod
    def of(cls, row: Row) -> Self | None:
        """Return a conversation as it is, and of a pair the prompt with its chosen answer."""
        # The rejected answer is left out: what is imitated should be good.
        if isinstance(row, Pair):
            return cls(row.prompt + row.chosen, row.tools, row.parallel_tool_calls)
        return row if isinstance(row, cls) else None

    @property
    def question(self) -> Turns:
        """All before the last turn of the assistant."""
        last = len(self.messages) - 1
        while last > 0 and self.messages[last].role != "assistant":
            last -= 1
        return self.messages[:last]

    @property
    def answer(self) -> Turns:
        """The last turn of the assistant, and what follows it."""
        return self.messages[len(self.question) :]

    def learned(self) -> Sequence[Learned]:
        """Return the conversation with each turn of the assistant whose weight is not 0."""
        return [Learned(self.messages, tuple((index, index + 1) for index in self._learned_turns()))]

    def _learned_turns(self) -> list[int]:
        turns = enumerate(self.messages)
        return [index for index, turn in turns if turn.role == "assistant" and turn.weight != 0]

    def texts(self) -> Iterator[Text]:
        """Yield each turn's text."""
        for number, text in numbered(self.messages):
            yield Text(f"turn {number}", text, self.messages[number - 1].role == "assistant")

    def wire(self) -> object:
        """Return the conversation, with images as parts of the content."""
        turns = on_the_wire(self.messages)
        if turns is self.messages:
            return self
        others = {"tools": self.tools, "parallel_tool_calls": self.parallel_tool_calls}
        return {"messages": turns, **{key: value for key, value in others.items() if value is not None}}

    def fields(self) -> dict[str, Json]:
        """Return the last answer as the reference."""
        return {"reference": text_of(self.answer)}

    def is_plain(self) -> bool:
        """Say whether it is a question and an answer that is learned."""
        if len(self.messages) != 2:
            return False
        question, answer = self.messages
        return (
            question.role == "user"
            and answer.role == "assistant"
            and answer.weight != 0
            and not answer.tool_calls
            and has_text(question.content)
            and has_text(answer.content)
        )

    def check(self) -> tuple[Oddity, ...]:
        """Raise `BadRow` unless there is something to learn: an answer to a prompt."""
        turns = self.messages
        if not turns:
            raise BadRow("no-prompt", "the conversation is empty; it needs a question and an answer; add them")
        oddities = check_order(tuple([turn.role for turn in turns]))
        if turns[-1].role != "assistant":
            raise BadRow(
                "last-turn",
                f"the last turn is the {turns[-1].role}'s; it must be the assistant's; add the answer",
            )
        if not any(turn.role == "user" and asks(turn) for turn in self.question):
            raise BadRow("no-prompt", "the user's turns are empty; the answer must reply to something; add it")
        learned = [turn for turn in turns if turn.role == "assistant" and turn.weight != 0]
        if not learned:
            raise BadRow(
                "nothing-to-learn",
                "every turn of the assistant has weight 0; one at least needs weight 1; set it or remove the row",
            )
        # A turn that only calls a tool has no content, and is learned by its call.
        if not all(has_text(turn.content) or turn.tool_calls for turn in learned):
            raise BadRow("empty-answer", "an answer is empty; it needs text; write it, or set its weight to 0")
        return oddities + check_calls([turns], self.tools)


KIND = Conversation
