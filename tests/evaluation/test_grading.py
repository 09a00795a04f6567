"""Answers are graded once: what is on the disk is not graded again, whatever else changes."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from runner.data.rows import Message
from runner.errors import AccessError
from runner.evaluation import grading, judges, summary
from runner.graders import Grade, Grader, Grading, Judge, Sample, Subject
from runner.judging.keys import JudgeKeys
from runner.record import graded
from runner.record.events import Event, Note
from runner.record.graded import Answer, AnswerGrade, Asked, row_scores
from tests import waiting

ROWS = [Asked(row=f"row-{n}", prompt=(Message("user", f"{n}?"),), fields={"answer": str(n)}) for n in range(4)]
ANSWERS = [
    Answer(model=model, row=row.row, sample=sample, text=text)
    for model, text in (("base", "0"), ("tuned", "2"))
    for row in ROWS
    for sample in range(2)
]
seen: list[str] = []


class Equal(Grader, frozen=True, kw_only=True):
    """1 where an answer equals the row's; notes what it has seen."""

    type: ClassVar[str] = "equal"
    letters: str = ""

    def grade(self, subject: Subject) -> Grade:
        seen.append(subject.sample.text)
        if subject.item["answer"] == "3":
            return Grade(None, error="three is too much")
        return Grade(float(subject.item["answer"] == subject.sample.text), "compared")


class AtOnce(Equal, frozen=True, kw_only=True):
    """The same for several at a time."""

    concurrent: ClassVar[bool] = True


class NextTo(Grader, frozen=True, kw_only=True):
    """1 where the answer is greater than the other model's."""

    type: ClassVar[str] = "next_to"
    compares: ClassVar[bool] = True

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        def compared(subject: Subject) -> Grade:
            assert subject.other is not None
            return Grade(float(subject.sample.text > subject.other.text))

        yield compared


def grades(folder: Path, *graders: Grader, answers: list[Answer] = ANSWERS, base: str = "base") -> list[AnswerGrade]:
    seen.clear()
    folder.mkdir(exist_ok=True)
    return result(grading.grade(folder, ROWS, answers, graders, None, base, at_once=3))


def judged(folder: Path, *graders: Grader) -> list[AnswerGrade]:
    seen.clear()
    return result(judges.grade_all(folder, ROWS, ANSWERS, graders, JudgeKeys()))


def result(work: Generator[Event, None, list[AnswerGrade]]) -> list[AnswerGrade]:
    try:
        while True:
            next(work)
    except StopIteration as done:
        found: list[AnswerGrade] = done.value
        return found


@pytest.mark.parametrize("kind", [Equal, AtOnce])
def test_every_answer_has_a_grade_or_an_error(kind: type[Equal], tmp_path: Path) -> None:
    found = grades(tmp_path, kind(name="equal"))
    assert [(each.model, each.row, each.sample) for each in found] == [(a.model, a.row, a.sample) for a in ANSWERS]
    assert [each.score for each in found[:8]] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, None, None]
    assert {each.error for each in found if each.score is None} == {"three is too much"}
    assert graded.read(tmp_path / graded.GRADES, AnswerGrade) == found


def test_nothing_is_graded_again(tmp_path: Path) -> None:
    first = grades(tmp_path, Equal(name="equal"))
    assert len(seen) == 16
    assert grades(tmp_path, Equal(name="equal")) == first
    assert seen == []


def test_other_graders_and_answers_are_graded_and_no_more(tmp_path: Path) -> None:
    grades(tmp_path, Equal(name="equal"))
    grades(tmp_path, Equal(name="equal"), Equal(name="other", letters="x"))
    assert len(seen) == 16
    changed = [each if each.row != "row-1" else Answer(model=each.model, row=each.row, text="7") for each in ANSWERS]
    grades(tmp_path, Equal(name="equal"), answers=changed)
    assert seen == ["7"] * 4


class Failing(AtOnce, frozen=True, kw_only=True):
    """One whose service cannot be reached when it is asked for "2"."""

    def grade(self, subject: Subject) -> Grade:
        if subject.sample.text == "2":
            raise AccessError("no key")
        return super().grade(subject)


def test_answers_graded_while_others_are_sampled_have_the_same_grades_in_the_same_order(tmp_path: Path) -> None:
    grader, before = AtOnce(name="equal"), grades(tmp_path / "after", AtOnce(name="equal"))
    seen.clear()
    with grading.ahead(tmp_path / "ahead", ROWS, grader, None, at_once=3) as on_answer:
        for each in reversed(ANSWERS):
            on_answer(each)
        waiting.until(lambda: len(seen) == len(ANSWERS), "all grades before the last answer is there")
    assert grades(tmp_path / "ahead", grader) == before
    assert seen == [], "none is asked for again"
    # A process that was killed among them takes up those that are on the disk.
    with grading.ahead(tmp_path / "ahead", ROWS, grader, None, at_once=3) as on_answer:
        on_answer(ANSWERS[0])
    assert seen == []


def test_what_grades_here_or_raises_is_left_until_all_answers_are_sampled(tmp_path: Path) -> None:
    seen.clear()
    with grading.ahead(tmp_path, ROWS, Equal(name="equal"), None) as on_answer:
        on_answer(ANSWERS[0])
    assert seen == []
    with grading.ahead(tmp_path, ROWS, Failing(name="equal"), None) as on_answer:
        for each in ANSWERS:
            on_answer(each)
    with pytest.raises(AccessError):
        grades(tmp_path, Failing(name="equal"))
    assert {each.score for each in graded.read(tmp_path / graded.GRADES, AnswerGrade)} <= {0.0, 1.0, None}


def test_a_torn_line_is_graded_again(tmp_path: Path) -> None:
    first = grades(tmp_path, Equal(name="equal"))
    path = tmp_path / graded.GRADES
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:5]) + lines[5][:20])
    assert grades(tmp_path, Equal(name="equal")) == first
    assert len(seen) == 11


def test_a_grader_that_compares_sees_the_other_models_answer_and_grades_no_base(tmp_path: Path) -> None:
    found = grades(tmp_path, NextTo(name="next_to"))
    assert {each.model for each in found} == {"tuned"}
    assert {each.score for each in found} == {1.0}
    assert {each.score for each in grades(tmp_path, NextTo(name="next_to"), base="tuned")} == {0.0}


def test_a_row_counts_once_however_many_answers_it_has(tmp_path: Path) -> None:
    found = [
        *(AnswerGrade(model="m", row="a", sample=n, grader="g", score=1.0) for n in range(9)),
        AnswerGrade(model="m", row="b", grader="g", score=0.0),
        AnswerGrade(model="m", row="c", sample=0, grader="g", score=1.0),
        AnswerGrade(model="m", row="c", sample=1, grader="g", error="no"),
    ]
    assert row_scores(found, "m") == {"a": {"g": 1.0}, "b": {"g": 0.0}}
    assert summary.means(found, "m") == {"g": 0.5}


def test_scores_of_a_mixture_are_also_summed_up_by_source() -> None:
    found = [
        AnswerGrade(model="tuned", row=row, grader="g", score=score)
        for row, score in zip("abcd", (1, 0, 1, 1), strict=True)
    ]
    rows = [
        Asked(row=row, prompt=(), source=source)
        for row, source in zip("abcd", ("chat", "chat", "code", ""), strict=True)
    ]
    assert summary.metrics(found, [], rows) == {"eval/g": 0.75, "eval/chat/g": 0.5, "eval/code/g": 1.0}


def test_metrics_name_both_models_and_what_passed_or_failed(tmp_path: Path) -> None:
    graders = [Equal(name="equal", pass_threshold=0.5)]
    found = summary.metrics(grades(tmp_path, *graders), graders)
    assert found == pytest.approx({
        "eval/equal_before": 1 / 3, "eval/equal_passed_before": 1 / 3, "eval/equal_errors_before": 1 / 4,
        "eval/equal": 1 / 3, "eval/equal_passed": 1 / 3, "eval/equal_errors": 1 / 4,
    })  # fmt: skip


def test_a_grader_sees_the_question_of_a_row_as_a_file_has_it() -> None:
    prompt = (Message("system", "Be brief."), Message("user", "Why is the sky blue?"))
    row = Asked(row="one", prompt=prompt, fields={"answer": "Air."})
    item = grading.item_of(row)
    assert item == {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Why is the sky blue?"},
        ],
        "answer": "Air.",
    }
    assert Subject(item, Sample("Air.")).question == "Why is the sky blue?"


class Down(AtOnce, frozen=True, kw_only=True):
    """One whose service answers with errors alone."""

    def grade(self, subject: Subject) -> Grade:
        seen.append(subject.sample.text)
        return Grade(None, error="it answers 500")


def test_a_grader_that_waits_for_a_network_is_asked_again_where_it_had_an_error(tmp_path: Path) -> None:
    """A service may be up again, or its key be right now; other errors would come again."""
    first = judged(tmp_path, Down(name="equal"), Equal(name="here"))
    assert {each.score for each in first if each.grader == "equal"} == {None}
    again = judged(tmp_path, AtOnce(name="equal"), Equal(name="here"))
    assert [each.score for each in again if each.grader == "equal"][:6] == [1.0, 1.0, 0.0, 0.0, 0.0, 0.0]
    judged(tmp_path, AtOnce(name="equal"), Equal(name="here"))
    assert len(seen) == 4, "the error of row 3, which stays, with its two answers of each model"


def test_answers_without_a_grade_are_counted_with_the_first_reason(tmp_path: Path) -> None:
    events = list(judges.grade_all(tmp_path, ROWS, ANSWERS, [Equal(name="equal")], JudgeKeys()))
    assert [each.text for each in events if isinstance(each, Note)] == [
        "equal: 4 of 16 answers have no grade: three is too much"
    ]


def test_grades_of_graders_that_are_asked_for_again_are_taken_from_the_disk(tmp_path: Path) -> None:
    """An own service may cost: another grader in between must not throw its grades away."""
    first = grades(tmp_path, AtOnce(name="equal"))
    other = grades(tmp_path, Equal(name="other", letters="x"))
    assert graded.read(tmp_path / graded.GRADES, AnswerGrade) == other
    for _ in range(2):
        assert grades(tmp_path, AtOnce(name="equal")) == first
        assert grades(tmp_path, Equal(name="other", letters="x")) == other
    assert seen == []
    assert len(graded.read(tmp_path / graded.FORMER_GRADES, AnswerGrade)) == 32
