"""Grades summed up: the means that metrics and tables show. Rows are the unit, however many answers each has."""

from collections.abc import Sequence

from runner.graders import Grader
from runner.record.graded import AnswerGrade, Asked, by_source, row_scores


def means(grades: Sequence[AnswerGrade], model: str, rows: Sequence[Asked] = ()) -> dict[str, float]:
    """Return a model's mean score by grader, over the rows that have one.

    Of `rows` from a mixture also those of each source, by `SOURCE/GRADER`.
    """
    scores: dict[str, list[float]] = {}
    for row in by_source(row_scores(grades, model), rows).values():
        for grader, score in row.items():
            scores.setdefault(grader, []).append(score)
    return {grader: sum(values) / len(values) for grader, values in scores.items()}


def rates(grades: Sequence[AnswerGrade], graders: Sequence[Grader], model: str) -> dict[str, float]:
    """Return the share of a model's answers that passed, by `GRADER_passed`, and without a grade, `GRADER_errors`."""
    found: dict[str, float] = {}
    for grader in graders:
        mine = [each for each in grades if each.model == model and each.grader == grader.name]
        scores = [each.score for each in mine if each.score is not None]
        threshold = grader.passing_score()
        if threshold is not None and scores:
            found[f"{grader.name}_passed"] = sum(score >= threshold for score in scores) / len(scores)
        if len(scores) < len(mine):
            # Left out of the mean, so it has to be said: a mean over half of the answers may be another one.
            found[f"{grader.name}_errors"] = 1 - len(scores) / len(mine)
    return found


def of_model(
    grades: Sequence[AnswerGrade], graders: Sequence[Grader], model: str, rows: Sequence[Asked] = ()
) -> dict[str, float]:
    """Return a model's means, of rows of a mixture also by source, and rates."""
    return means(grades, model, rows) | rates(grades, graders, model)


def metrics(grades: Sequence[AnswerGrade], graders: Sequence[Grader], rows: Sequence[Asked] = ()) -> dict[str, float]:
    """Return the metrics of a run: `eval/GRADER` of the tuned model, `eval/GRADER_before` of the base model.

    Of a mixture also those of each source: `eval/SOURCE/GRADER`, as the metrics of held-out rows are named.
    """
    tuned, base = of_model(grades, graders, "tuned", rows), of_model(grades, graders, "base", rows)
    before = {f"eval/{name}_before": value for name, value in base.items()}
    return before | {f"eval/{name}": value for name, value in tuned.items()}


def first_error(grades: Sequence[AnswerGrade], grader: str) -> str:
    """Return the first error of a grader, empty where it has none."""
    return next((each.error for each in grades if each.grader == grader and each.error), "")
