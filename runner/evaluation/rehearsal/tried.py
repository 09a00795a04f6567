"""Graders tried before anything is trained or paid for: fields that no row has, scores that are all the same.

A grader whose `{{ item.KEY }}` does not match the data gives 0 to every answer at a hosted service, without a word.
Here the rows are looked at, and graders that cost nothing grade the answers that the data has: the good ones (the
reference, or the chosen answer), those of other rows or the rejected ones, and empty ones.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice

from runner.data.quoting import shown
from runner.errors import DataError
from runner.evaluation import judges
from runner.evaluation.grading import item_of
from runner.evaluation.rehearsal.rehearsed import Rehearsed
from runner.graders import Grade, Grader, Sample, Subject, templates
from runner.judging.keys import JudgeKeys
from runner.record.graded import SIDES, Answer, Asked
from runner.record.samples import Sampling

TRIED = 32
"""Rows whose answers are graded; a python grader takes well under a millisecond for each."""
FOUND = 3
"""Rows without a field that are named."""
EMPTY = "empty"


def rehearse(
    rows: Sequence[Asked], graders: Sequence[Grader], keys: JudgeKeys, sampling: Sampling,
    models: Sequence[str] = SIDES, answers: Sequence[Answer] = (),
) -> list[Rehearsed]:  # fmt: skip
    """Return what became of each grader, and what its judge will cost for some models, whose answers may be there.

    Raises `DataError` with file and line for a row without a field that a grader names.
    """
    tried = try_out(rows, graders)
    prices = [judges.price(rows, grader, keys, sampling, models, answers) for grader in graders]
    return [replace(each, price=price) for each, price in zip(tried, prices, strict=True)]


def try_out(rows: Sequence[Asked], graders: Sequence[Grader]) -> list[Rehearsed]:
    """Return what became of each grader; raises as `rehearse` does."""
    for grader in graders:
        _require_fields(rows, grader)
    return [_tried(rows, grader) for grader in graders]


def _require_fields(rows: Sequence[Asked], grader: Grader) -> None:
    texts = list(grader.templates())
    lacking = [(row, names) for row in rows if (names := templates.missing(texts, item_of(row)))]
    if not lacking:
        return
    row, names = lacking[0]
    places = ", ".join(_where(each) for each, _ in lacking[:FOUND])
    more = f" and {len(lacking) - FOUND:,} more" if len(lacking) > FOUND else ""
    keys = ", ".join(f"item.{key}" for key in item_of(row))
    raise DataError(
        f"{places}{more}: grader {grader.name} names {', '.join(names)}, which {len(lacking):,} of {len(rows):,} rows "
        f"do not have; there is {keys}; add the field to each row, or fix the template."
    )


def _tried(rows: Sequence[Asked], grader: Grader) -> Rehearsed:
    warnings = list(grader.warnings())
    paid = list(grader.models()) or grader.concurrent
    if paid or grader.compares or grader.loads():
        return Rehearsed(grader.name, grader.type, warnings=tuple(warnings))
    graded: dict[str, list[tuple[Subject, Grade]]] = {}
    with grader.grading(None) as grade:
        for kind, subject in islice(_subjects(rows), TRIED * 3):
            graded.setdefault(kind, []).append((subject, grade(subject)))
    known = {kind: [grade.score for _, grade in each if grade.score is not None] for kind, each in graded.items()}
    scores = {kind: each for kind, each in known.items() if each}
    # An empty answer may well have no grade; where the data has no other answers it is all that can be said.
    telling = [kind for kind in graded if kind != EMPTY] or list(graded)
    warnings += [text for kind in telling if (text := _ungraded(kind, graded[kind], rows))]
    means = {kind: sum(each) / len(each) for kind, each in scores.items()}
    return Rehearsed(grader.name, grader.type, means, (*warnings, *_odd(scores, means)))


def _ungraded(kind: str, graded: Sequence[tuple[Subject, Grade]], rows: Sequence[Asked]) -> str:
    """Say how many answers of a kind have no grade, with the first error; nothing where all have one."""
    failed = [(subject, found.error) for subject, found in graded if found.score is None]
    if not failed:
        return ""
    subject, error = failed[0]
    return f"no grade for {len(failed)} of {len(graded)} {kind} answers, first that of {_place(subject, rows)}: {error}"


def _odd(scores: Mapping[str, Sequence[float]], means: Mapping[str, float]) -> list[str]:
    """Say what makes scores useless: none differ, or bad answers have better ones."""
    problems: list[str] = []
    values = {value for each in scores.values() for value in each}
    # As a hosted service grades where `{{ item.KEY }}` does not match the data: 0 for every answer, without a word.
    if len(values) == 1 and len(scores) > 1:
        problems.append(f"every answer, good, bad or empty, has the score {values.pop():g}: it distinguishes nothing")
    for bad in ("rejected", "other", EMPTY):
        if bad in means and "good" in means:
            better, good = f"{means[bad]:.3g}", f"{means['good']:.3g}"
            # By what is shown: the same scores, summed in another order, differ in the last digit.
            if float(better) > float(good):
                problems.append(f"{bad} answers have a better score ({better}) than good ones ({good})")
    return problems


def _subjects(rows: Sequence[Asked]) -> Iterator[tuple[str, Subject]]:
    """Yield answers that the data has, with what kind they are of: `good`, `rejected` or `other`, and `empty`."""
    for number, row in enumerate(rows):
        item, other = item_of(row), rows[(number + 1) % len(rows)]
        good, bad = row.fields.get("reference"), row.fields.get("rejected")
        if isinstance(good, str):
            yield "good", Subject(item, Sample(good))
        if isinstance(bad, str):
            yield "rejected", Subject(item, Sample(bad))
        elif isinstance(wrong := other.fields.get("reference"), str) and wrong != good:
            yield "other", Subject(item, Sample(wrong))
        yield EMPTY, Subject(item, Sample(""))


def _place(subject: Subject, rows: Sequence[Asked]) -> str:
    return next(_where(row) for row in rows if item_of(row) == subject.item)


def _where(row: Asked) -> str:
    """Return file and line of a row; of a held-out one, which is read without them, what it asks."""
    return row.place or f"the held-out row {shown(repr(row.shown))}"
