"""Grades summed up: the means that metrics and tables show. Rows are the unit, however many answers each has."""

from collections.abc import Sequence

from runner.graders import Grader
from runner.record.graded import AnswerGrade, row_scores


def means(grades: Sequence[AnswerGrade], model: str) -> dict[str, float]:
    """Return a model's mean score by grader, over the rows that have one."""
    scores: dict[str, list[float]] = {}
    for row in row_scores(grades, model).values():
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


def of_model(grades: Sequence[AnswerGrade], graders: Sequence[Grader], model: str) -> dict[str, float]:
    """Return a model's means and rates."""
    return means(grades, model) | rates(grades, graders, model)


def metrics(grades: Sequence[AnswerGrade], graders: Sequence[Grader]) -> dict[str, float]:
    """Return the metrics of a run: `eval/GRADER` of the tuned model, `eval/GRADER_before` of the base model."""
    tuned, base = of_model(grades, graders, "tuned"), of_model(grades, graders, "base")
    before = {f"eval/{name}_before": value for name, value in base.items()}
    return before | {f"eval/{name}": value for name, value in tuned.items()}


def first_error(grades: Sequence[AnswerGrade], grader: str) -> str:
    """Return the first error of a grader, empty where it has none."""
    return next((each.error for each in grades if each.grader == grader and each.error), "")
