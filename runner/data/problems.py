"""Problems out of files: prompts, and the fields that graders compare answers with.

For `evaluation.prompts` and, as rows of the format `problem`, for methods that learn from them.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec

from runner.data.formats import recognise
from runner.data.kinds.problem import Problem
from runner.data.reading.content_parts import join_parts
from runner.data.reading.decode_errors import explain
from runner.data.reading.files import locate
from runner.data.reading.row_reader import read_file
from runner.data.reading.unknown_keys import fit
from runner.data.rows import BadRow, Message, Turns, text_of
from runner.errors import DataError

QUESTIONS = ("prompt", "question", "problem", "input")
"""Keys that hold a prompt as a text or as turns, where a row has no `messages`: gsm8k, reasoning-gym and others."""
RESERVED = ("messages", "tools")


def read(files: str | Sequence[str]) -> Iterator[tuple[Problem, str]]:
    """Yield the problem that each row of files holds, with its place (file and line).

    A row is `messages` that end with the user's turn, or a text under one of `QUESTIONS`; or any row that a method
    learns from, whose answers become the fields `reference`, `chosen` and `rejected`. Each other key is a field that
    graders find as `{{ item.KEY }}`. Raises `DataError` by file and line for a row that asks nothing.
    """
    for file in locate(files):
        for block in read_file(file, "auto", "problem"):
            for finding in block.findings:
                if finding.severity == "error":
                    raise DataError(f"{finding}.")
            for row, line in zip(block.rows, block.lines, strict=True):
                assert isinstance(row, Problem)
                yield row, f"{file.name}:{line}"


def problem_of(row: Mapping[str, Any]) -> Problem:
    """Return a decoded row as a problem. Raises `BadRow` where it asks nothing."""
    if "messages" in row:
        turns = _as_turns(row["messages"])
        answer = turns[-1:] if turns and turns[-1].role == "assistant" else ()
        fields = {key: value for key, value in row.items() if key not in RESERVED}
        if answer:
            fields.setdefault("reference", text_of(answer))
        return Problem(turns[: len(turns) - len(answer)], fields, row.get("tools"))
    for format in recognise(row)[:1]:
        known = join_parts({key: value for key, value in row.items() if key in format.all_keys})
        try:
            problem = Problem.of(format.to_row(fit(known, format.raw)[0]))
        except ValueError as error:  # msgspec.ValidationError is one
            raise explain(error, msgspec.json.encode(row), format) from None
        assert problem is not None
        others = {key: value for key, value in row.items() if key not in (*format.all_keys, *RESERVED)}
        return Problem(problem.prompt, others | problem.reference, row.get("tools"))
    key = next((key for key in QUESTIONS if key in row), None)
    if key is None:
        raise BadRow(
            "no-prompt",
            f"the row has no prompt; it needs `messages`, or one of {', '.join(QUESTIONS)}; rename the key that has it",
        )
    value = row[key]
    turns = (Message("user", value),) if isinstance(value, str) else _as_turns(value)
    fields = {name: each for name, each in row.items() if name not in (*RESERVED, key)}
    if isinstance(fields.get("answer"), str):
        fields.setdefault("reference", fields["answer"])
    return Problem(turns, fields, row.get("tools"))


def _as_turns(value: Any) -> Turns:
    """Return decoded turns; keys of a turn that are null, as the service adds them, are none."""
    try:
        return msgspec.convert([_without_nulls(join_parts(each)) for each in value], tuple[Message, ...])
    except (msgspec.ValidationError, TypeError, AttributeError) as error:
        raise BadRow("not-turns", f"its turns cannot be read ({error}); each needs a role and a content") from None


def _without_nulls(turn: Any) -> Any:
    return {key: value for key, value in turn.items() if value is not None}
