"""A pair: preference data, a prompt with the answer people prefer and the one they do not."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import ClassVar, Self

from runner.data.json_value import Json
from runner.data.quality.checks import asks, check_answer, check_order
from runner.data.quality.tool_calls import check_calls
from runner.data.rows import BadRow, Learned, Oddity, Row, Text, Tools, Turns, numbered, on_the_wire, text_of


class Pair(Row, frozen=True, gc=False, omit_defaults=True):
    """A prompt with the answer people prefer and the one they do not."""

    label: ClassVar[str] = "pairs of a chosen and a rejected answer"

    prompt: Turns
    chosen: Turns
    rejected: Turns
    tools: Tools | None = None
    parallel_tool_calls: bool | None = None

    @property
    def question(self) -> Turns:
        """The prompt."""
        return self.prompt

    @property
    def answer(self) -> Turns:
        """The chosen answer."""
        return self.chosen

    @classmethod
    def columns(cls, rows: Sequence[Self]) -> tuple[list[Turns], list[Turns]]:
        """Return the prompts and the chosen answers of pairs; a quarter of the time that two properties take."""
        return [row.prompt for row in rows], [row.chosen for row in rows]

    def learned(self) -> Sequence[Learned]:
        """Return the prompt with each answer, the chosen one first.

        Of an answer what tools say, and turns with `weight: 0`, are not learned.
        """
        start = len(self.prompt)
        # The turns of the prompt come first in both, so that it is tokenised and computed once.
        return [Learned(self.prompt + each, spoken(each, start)) for each in (self.chosen, self.rejected)]

    def texts(self) -> Iterator[Text]:
        """Yield each turn's text."""
        yield from (Text(f"the prompt (turn {number})", text, False) for number, text in numbered(self.prompt))
        yield from (Text("the chosen answer", text, True) for _, text in numbered(self.chosen))
        yield from (Text("the rejected answer", text, True) for _, text in numbered(self.rejected))

    def wire(self) -> object:
        """Return `input` and two outputs.

        Source: https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-direct-preference-optimization
        """
        given = {
            "messages": on_the_wire(self.prompt), "tools": self.tools, "parallel_tool_calls": self.parallel_tool_calls,
        }  # fmt: skip
        return {
            # Absent rather than null: a service's schema need not allow null.
            "input": {key: value for key, value in given.items() if value is not None},
            "preferred_output": self.chosen,
            "non_preferred_output": self.rejected,
        }

    def fields(self) -> dict[str, Json]:
        """Return both answers, and the chosen one as the reference."""
        chosen = text_of(self.chosen)
        return {"reference": chosen, "chosen": chosen, "rejected": text_of(self.rejected)}

    def check(self) -> tuple[Oddity, ...]:
        """Raise `BadRow` unless there is a prompt that asks for an answer, and two different answers."""
        prompt = self.prompt
        if not prompt or not asks(prompt[-1]):
            raise BadRow("no-prompt", "the prompt is empty; both answers must reply to something; add it")
        oddities = check_order(tuple([turn.role for turn in prompt]))
        if prompt[-1].role not in ("user", "tool"):
            raise BadRow(
                "role-order",
                f"the prompt ends with a turn of the {prompt[-1].role}; it must end with the user's or a tool's; "
                "move that turn into both answers, or remove it",
            )
        check_answer("chosen", self.chosen)
        check_answer("rejected", self.rejected)
        # Nothing is preferred: the margin is zero whatever the model.
        if self.chosen == self.rejected:
            raise BadRow(
                "equal-answers",
                "the chosen and the rejected answer are equal; they must differ; change one or remove the row",
            )
        return oddities + check_calls([prompt + self.chosen, prompt + self.rejected], self.tools)

    def is_plain(self) -> bool:
        """Say whether user and assistant speak in turn, then one turn an answer; a third of the time of `check`."""
        before, question, prompt = "assistant", None, self.prompt
        for turn in prompt[1:] if prompt and prompt[0].role == "system" else prompt:
            role, question = turn.role, turn.content
            if role == before or (role != "user" and role != "assistant") or turn.tool_calls:
                return False
            before = role
        if before != "user" or len(self.chosen) != 1 or len(self.rejected) != 1:
            return False
        (good,), (bad,) = self.chosen, self.rejected
        chosen, rejected = good.content, bad.content
        # Written out: a call of `has_text` for each would take as long as all of this.
        if not chosen or not rejected or not question or good.role != "assistant" or bad.role != "assistant":
            return False
        if good.tool_calls or bad.tool_calls or good.weight == 0 or bad.weight == 0:
            return False
        return not (chosen == rejected or chosen.isspace() or rejected.isspace() or question.isspace())


def spoken(answer: Turns, start: int) -> tuple[tuple[int, int], ...]:
    """Return where the assistant speaks in an answer whose first turn has the number `start`.

    Its turns with `weight: 0` are left out, as what a tool says.
    """
    ends = [place for place, turn in enumerate(answer) if turn.role == "tool" or turn.weight == 0]
    pieces = pairwise([-1, *ends, len(answer)])
    return tuple((start + before + 1, start + end) for before, end in pieces if end > before + 1)


KIND = Pair
