"""Problems out of files: prompts, and the fields that graders compare answers with.

For `evaluation.prompts` and, as rows of the format `problem`, for methods that learn from them.
"""

from collections.abc import Iterator, Mapping, Sequence

import msgspec

from runner.data.formats import recognise
from runner.data.json_value import Json
from runner.data.kinds.problem import Problem
from runner.data.reading.content_parts import join_parts, list_tools
from runner.data.reading.decode_errors import explain
from runner.data.reading.files import locate
from runner.data.reading.row_reader import read_file
from runner.data.reading.unknown_keys import fit
from runner.data.rows import BadRow, Message, Tools, Turns, text_of
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


def problem_of(row: Mapping[str, Json]) -> Problem:
    """Return a decoded row as a problem. Raises `BadRow` where it asks nothing."""
    if "messages" in row:
        turns = _as_turns(row["messages"])
        answer = turns[-1:] if turns and turns[-1].role == "assistant" else ()
        # Each other key, while training reads only its own: a grader may name any of them.
        fields = {key: value for key, value in row.items() if key not in RESERVED}
        if answer:
            fields.setdefault("reference", text_of(answer))
        return Problem(turns[: len(turns) - len(answer)], fields, _tools(row))
    # Rows for training, too: their good answer is what a grader compares with.
    for format in recognise(row)[:1]:
        known = join_parts(list_tools({key: value for key, value in row.items() if key in format.all_keys}))
        try:
            problem = Problem.of(format.to_row(fit(known, format.raw)[0]))
        except ValueError as error:  # msgspec.ValidationError is one
            raise explain(error, msgspec.json.encode(row), format) from None
        assert problem is not None
        others = {key: value for key, value in row.items() if key not in (*format.all_keys, *RESERVED)}
        # A format that reads tools may have them at a place of its own: foundry's are in `input`.
        tools = problem.tools if problem.tools is not None or "tools" in format.all_keys else _tools(row)
        return Problem(problem.prompt, others | problem.reference, tools)
    key = next((key for key in QUESTIONS if key in row), None)
    if key is None:
        raise BadRow(
            "no-prompt",
            f"the row has no prompt; it needs `messages`, or one of {', '.join(QUESTIONS)}; rename the key that has it",
        )
    value = row[key]
    turns = (Message("user", value),) if isinstance(value, str) else _as_turns(value)
    fields = {name: each for name, each in row.items() if name not in (*RESERVED, key)}
    # gsm8k and others call the reference `answer`; our own graders' templates name it `reference`.
    if isinstance(fields.get("answer"), str):
        fields.setdefault("reference", fields["answer"])
    return Problem(turns, fields, _tools(row))


def _tools(row: Mapping[str, Json]) -> Tools | None:
    """Return the tools of a row. Raises `BadRow` where they are no list of objects."""
    try:
        return msgspec.convert(list_tools({"tools": row.get("tools")}), dict[str, Tools | None])["tools"]
    except msgspec.ValidationError as error:
        raise BadRow("not-tools", f"its `tools` are no list of objects ({error}); repair them") from None


def _as_turns(value: object) -> Turns:
    """Return decoded turns; keys of a turn that are null, as the service adds them, are none."""
    # Files from the service have keys that are null in each turn.
    turns = [_without_nulls(each) for each in value] if isinstance(value, list) else value
    try:
        return msgspec.convert(join_parts(turns), tuple[Message, ...])
    except msgspec.ValidationError as error:
        raise BadRow("not-turns", f"its turns cannot be read ({error}); each needs a role and a content") from None


def _without_nulls(turn: object) -> object:
    return {key: value for key, value in turn.items() if value is not None} if isinstance(turn, dict) else turn
