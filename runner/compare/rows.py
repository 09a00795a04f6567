"""Rows side by side: each prompt with the answers of base model and variants, their grades, what sets them apart."""

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from runner.compare.results import TUNED, Variant
from runner.compare.verdict import Comparison
from runner.data.rows import Message
from runner.record import graded
from runner.record.graded import Answer, AnswerGrade, Asked

SHOWN = 200
"""Rows on a page; those that changed least are left out."""
COLUMNS = 3
"""Variants on a page, the best ones: more are too narrow to read."""
LONGEST = 4000
"""Characters of an answer that are shown, and whose words are compared."""
BASE = "base"


@dataclass(frozen=True)
class Score:
    """A grader's score of a row, the mean over samples; how far it is above that of the answer it is marked against."""

    grader: int
    value: float | None
    above: float | None
    reason: str


@dataclass(frozen=True)
class Cell:
    """An answer in pieces: `same`, `added`, or `missing` (only in the answer it is marked against)."""

    pieces: tuple[tuple[str, str], ...]
    note: str
    scores: tuple[Score, ...]


@dataclass(frozen=True)
class Row:
    """A prompt with its answers, a column each; `changes` is how far apart its scores are, by grader."""

    earlier: tuple[Message, ...]
    prompt: str
    cells: tuple[Cell | None, ...]
    changes: tuple[float, ...]

    @property
    def change(self) -> float:
        """How far apart scores are in the grader in which they are most."""
        return max(self.changes, default=0.0)


@dataclass(frozen=True)
class SideBySide:
    """The rows that changed most, of `total`; `marked` says what answers are marked against."""

    columns: tuple[str, ...]
    graders: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int
    marked: str
    left_out: int
    """Variants that are not shown."""


@dataclass(frozen=True)
class _Column:
    """Answers and grades of one model by row."""

    name: str
    answers: dict[str, list[Answer]]
    grades: dict[str, list[AnswerGrade]]
    scores: dict[str, dict[str, float]]


def side_by_side(found: Comparison) -> SideBySide | None:
    """Return the rows of a comparison side by side; None where no folder has answers. Reads the first run of each."""
    folders: dict[Path, tuple[Sequence[Asked], Sequence[Answer], Sequence[AnswerGrade]]] = {}
    variants = [each for each in (*found.ranked, *found.unranked) if (each.runs[0].folder / graded.ANSWERS).exists()]
    shown = variants[:COLUMNS]
    for folder in dict.fromkeys(each.runs[0].folder for each in shown):
        folders[folder] = (
            graded.read(folder / graded.PROBLEMS, Asked),
            graded.read(folder / graded.ANSWERS, Answer),
            graded.read(folder / graded.GRADES, AnswerGrade),
        )
    columns = [_column(each.name, each.runs[0].model, *folders[each.runs[0].folder][1:]) for each in shown]
    base = [each for each in map(_base, shown) if each and any(a.model == BASE for a in folders[each][1])][:1]
    columns[:0] = [_column("base model", BASE, *folders[each][1:]) for each in base]
    if not columns:
        return None
    # Several variants are compared with the best one; a single one with what it was before.
    against = 1 if base and len(shown) > 1 else 0
    # Rows have one id wherever they were asked, so those of several runs meet here.
    asked = {each.row: each for parts in folders.values() for each in parts[0]}
    graders = tuple(dict.fromkeys(grader for each in columns for row in each.scores.values() for grader in row))
    rows = [_row(each, columns, against, graders) for each in asked.values()]
    rows = [row for row in rows if any(row.cells)]
    kept = sorted(rows, key=lambda row: -row.change)[:SHOWN]
    return SideBySide(
        columns=tuple(each.name for each in columns), graders=graders, rows=tuple(kept), total=len(rows),
        marked=columns[against].name if len(columns) > against + 1 else "", left_out=len(variants) - len(shown),
    )  # fmt: skip


def _base(variant: Variant) -> Path | None:
    """Return the folder that may hold the base model's answers next to a variant's: a run's does."""
    run = variant.runs[0]
    # A model of an evaluation may have the same name, but has no plan.
    return run.folder if run.model == TUNED and run.plan_id else None


def _column(name: str, model: str, answers: Iterable[Answer], grades: Iterable[AnswerGrade]) -> _Column:
    column = _Column(name, {}, {}, {})
    for answer in answers:
        if answer.model == model:
            column.answers.setdefault(answer.row, []).append(answer)
    for grade in grades:
        if grade.model == model:
            column.grades.setdefault(grade.row, []).append(grade)
    scores = graded.row_scores((each for row in column.grades.values() for each in row), model)
    column.scores.update(scores)
    return column


def _row(asked: Asked, columns: Sequence[_Column], against: int, graders: Sequence[str]) -> Row:
    measured = columns[against:]
    values = [[each.scores.get(asked.row, {}).get(grader) for each in measured] for grader in graders]
    known = [[value for value in each if value is not None] for each in values]
    return Row(
        earlier=asked.prompt[:-1],
        prompt=asked.shown,
        cells=tuple(
            _cell(asked.row, each, columns[against] if place > against else None, graders)
            for place, each in enumerate(columns)
        ),
        changes=tuple(round(max(each) - min(each), 6) if each else 0.0 for each in known),
    )


def _cell(row: str, column: _Column, against: _Column | None, graders: Sequence[str]) -> Cell | None:
    if row not in column.answers:
        return None
    answer, other = _first(column.answers[row]), against.answers.get(row) if against else None
    text = _text(answer)
    notes = [] if answer.ended else ["cut off at the token limit"]
    notes += [f"{len(text) - LONGEST:,} more characters"] * (len(text) > LONGEST)
    notes += [f"the first of {len(column.answers[row])} samples"] * (len(column.answers[row]) > 1)
    pieces = marked(_text(_first(other))[:LONGEST], text[:LONGEST]) if other else [("same", text[:LONGEST])]
    scores = (_score(row, column, against, number, grader) for number, grader in enumerate(graders))
    return Cell(tuple(pieces), "; ".join(notes), tuple(each for each in scores if each))


def _score(row: str, column: _Column, against: _Column | None, number: int, grader: str) -> Score | None:
    grades = [each for each in column.grades.get(row, ()) if each.grader == grader]
    if not grades:
        return None
    value = column.scores.get(row, {}).get(grader)
    other = against.scores.get(row, {}).get(grader) if against else None
    above = None if value is None or other is None else value - other
    reason = next((each.error for each in grades if each.error), min(grades, key=lambda each: each.sample).reason)
    return Score(number, value, above, reason)


def _first(answers: Sequence[Answer]) -> Answer:
    return min(answers, key=lambda each: each.sample)


def _text(answer: Answer) -> str:
    calls = msgspec.json.encode(answer.tool_calls).decode() if answer.tool_calls else ""
    return "\n".join(part for part in (answer.text, calls) if part)


def marked(before: str, after: str) -> list[tuple[str, str]]:
    """Return a text in pieces by whole words: `same`, `added`, and `missing`, which only the other text has."""
    old, new = (re.findall(r"\S+\s*|\s+", text) for text in (before, after))
    pieces = []
    # By words: letters that two texts share by chance would cut them into crumbs.
    for _, start, end, new_start, new_end in difflib.SequenceMatcher(None, old, new).get_opcodes():
        here, there = "".join(new[new_start:new_end]), "".join(old[start:end])
        if here == there:
            pieces.append(("same", here))
        else:
            pieces += [(name, text) for name, text in (("missing", there), ("added", here)) if text]
    return pieces
