"""Of a prompt's graded answers the best is set against the worst, where they differ by the margin and in words."""

import pytest

from runner.data.rows import Message
from runner.pairs import choosing
from runner.pairs.choosing import Choice
from runner.record.graded import Answer, AnswerGrade, Asked

GOOD = "Wrap it in cloth and put it into a box."
BAD = "Well, bread is a matter of taste, and of the weather, too."
OTHER = "Ask your baker, who has done nothing else for thirty years."


def chosen(
    texts: list[str], scores: list[float | None], *, margin: float = 0.25, at_least: float | None = None,
    cut_off: tuple[int, ...] = (),
) -> Choice:  # fmt: skip
    row = Asked(row="r", prompt=(Message("user", "How do I keep bread fresh?"),))
    answers = [
        Answer(model="m", row="r", sample=at, text=text, ended=at not in cut_off) for at, text in enumerate(texts)
    ]
    grades = [
        AnswerGrade(model="m", row="r", sample=at, grader="g", score=score, error="" if score is not None else "down")
        for at, score in enumerate(scores)
    ]
    found = choosing.scored(answers, grades)
    return choosing.choose([row], found, margin=margin, at_least=at_least, similar=0.9)


def texts_of(choice: Choice) -> tuple[str | None, str | None]:
    (pick,) = choice.pairs
    return pick.pair.chosen[0].content, pick.pair.rejected[0].content


def test_the_best_answer_is_set_against_the_worst() -> None:
    assert texts_of(chosen([OTHER, BAD, GOOD], [0.5, 0.1, 0.9])) == (GOOD, BAD)


def test_of_equal_scores_the_answer_that_was_drawn_first_is_taken() -> None:
    assert texts_of(chosen([GOOD, OTHER, BAD], [1.0, 1.0, 0.0])) == (GOOD, BAD)
    assert texts_of(chosen([GOOD, OTHER, BAD], [1.0, 0.0, 0.0])) == (GOOD, OTHER)


@pytest.mark.parametrize(("scores", "pairs"), [([0.9, 0.6], 1), ([0.9, 0.61], 0)])
def test_the_margin_is_taken_as_it_is_written_whatever_floats_make_of_it(
    scores: list[float | None], pairs: int
) -> None:
    choice = chosen([GOOD, BAD], scores, margin=0.3)
    assert len(choice.pairs) == pairs
    assert sum(choice.no_pair.values()) == 1 - pairs


def test_an_answer_that_was_cut_off_is_never_imitated_but_may_be_the_worst() -> None:
    assert texts_of(chosen([GOOD, OTHER, BAD], [1.0, 0.8, 0.1], cut_off=(0, 2))) == (OTHER, BAD)
    assert chosen([GOOD, BAD], [1.0, 0.0], cut_off=(0, 1)).no_pair == {"every answer is empty or cut off": 1}


def test_an_answer_without_a_grade_is_neither_good_nor_bad() -> None:
    assert texts_of(chosen([GOOD, BAD, OTHER], [0.9, None, 0.3])) == (GOOD, OTHER)
    assert chosen([GOOD, BAD], [None, None]).no_pair == {"no answer has a grade": 1}


def test_an_empty_answer_is_no_side_of_a_pair() -> None:
    assert texts_of(chosen([GOOD, "  ", BAD], [0.9, 0.0, 0.2])) == (GOOD, BAD)


def test_answers_that_are_nearly_the_same_are_no_pair() -> None:
    choice = chosen([GOOD, GOOD.lower().replace(".", "!")], [1.0, 0.0])
    assert choice.no_pair == {"its answers are nearly the same": 1}
    assert len(choice.best) == 1, "it can be imitated all the same"


def test_only_answers_that_are_good_enough_are_imitated() -> None:
    assert chosen([GOOD, BAD], [0.7, 0.1], at_least=0.7).no_best == {}
    choice = chosen([GOOD, BAD], [0.7, 0.1], at_least=0.8)
    assert (len(choice.pairs), len(choice.best), sum(choice.no_best.values())) == (1, 0, 1)


def test_what_the_assistant_has_said_before_is_not_imitated() -> None:
    before = (Message("user", "Bread?"), Message("assistant", "Yes."), Message("user", "How do I keep it?"))
    found = choosing.scored(
        [Answer(model="m", row="r", text=GOOD)], [AnswerGrade(model="m", row="r", grader="g", score=1.0)]
    )
    (pick,) = choosing.choose(
        [Asked(row="r", prompt=before)], found, margin=0.1, at_least=None, similar=0.9
    ).best  # fmt: skip
    assert [turn.weight for turn in pick.conversation.messages] == [None, 0, None, None]
    pick.conversation.check()
