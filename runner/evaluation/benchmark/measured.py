"""Results of a benchmark of lm-evaluation-harness for a model, as values: metrics with their errors, and rows. Pure."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from typing import Any

import msgspec

from runner.data.rows import Message
from runner.graders import Json
from runner.record.graded import Answer, AnswerGrade, Asked


class BenchmarkMetric(msgspec.Struct, frozen=True, kw_only=True):
    """A metric of a task, or of a group of tasks, over all its rows."""

    model: str
    task: str
    metric: str
    """The harness's name of it, with the filter of answers after a comma where there is one."""
    value: float
    stderr: float | None
    """Its standard error, as the harness estimates it; None where it has none."""
    rows: int | None
    name: str
    """What it is called elsewhere: `TASK.METRIC`."""


class BenchmarkRow(msgspec.Struct, frozen=True, kw_only=True):
    """A row of a task: what was asked, answered and wanted, and its score by each metric that has one of 0 to 1."""

    task: str
    row: str
    prompt: str
    answer: str
    target: str
    scores: dict[str, float]


class Measurement(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a task, or a group of them, for a model."""

    model: str
    metrics: list[BenchmarkMetric]
    rows: list[BenchmarkRow]


def measurement(model: str, found: Mapping[str, Any], prompts: Mapping[str, Mapping[int, str]]) -> Measurement:
    """Return what the harness's result says of a model; `prompts` are those of each task, by the number of the row."""
    metrics = [
        metric for task, values in (found["results"] | found.get("groups", {})).items()
        for metric in _metrics(model, task, values, found)
    ]  # fmt: skip
    rows = [row for task, samples in found["samples"].items() for row in _rows(task, samples, found, prompts[task])]
    return Measurement(model=model, metrics=metrics, rows=rows)


def graded_rows(found: Sequence[Measurement]) -> tuple[list[Asked], list[Answer], list[AnswerGrade]]:
    """Return the rows of all measurements as those of any evaluation: problems, answers, grades."""
    problems: dict[str, Asked] = {}
    answers, grades = [], []
    for measured in found:
        for each in measured.rows:
            prompt, model = (Message("user", each.prompt),), measured.model
            fields: dict[str, Json] = {"reference": each.target, "task": each.task}
            problems.setdefault(each.row, Asked(row=each.row, prompt=prompt, fields=fields, place=each.task))
            answers.append(Answer(model=model, row=each.row, text=each.answer))
            grades += [
                AnswerGrade(model=model, row=each.row, grader=name, score=score) for name, score in each.scores.items()
            ]
    # By grader, then by row, as grading.py writes them: comparisons name graders in this order.
    order = {name: number for number, name in enumerate(dict.fromkeys(each.grader for each in grades))}
    return list(problems.values()), answers, sorted(grades, key=lambda each: order[each.grader])


def _metrics(model: str, task: str, values: Mapping[str, Any], found: Mapping[str, Any]) -> list[BenchmarkMetric]:
    metrics = []
    for key, value in values.items():
        metric, comma, of = key.partition(",")
        if comma and not metric.endswith("_stderr") and _number(value) is not None:
            rows = found.get("n-samples", {}).get(task, {}).get("effective")
            metrics.append(
                BenchmarkMetric(
                    model=model, task=task, metric=metric if of == "none" else key, value=float(value),
                    stderr=_number(values.get(f"{metric}_stderr,{of}")), rows=rows, name=_name(task, metric, of),
                )
            )  # fmt: skip
    return metrics


def _rows(
    task: str, samples: Sequence[Mapping[str, Any]], found: Mapping[str, Any], prompts: Mapping[int, str]
) -> list[BenchmarkRow]:
    """Return the rows of a task; what several filters make of an answer are several scores of one row."""
    better = found.get("higher_is_better", {}).get(task, {})
    rows: dict[int, BenchmarkRow] = {}
    for sample in samples:
        number = int(sample["doc_id"])
        scores = {
            _name(task, metric, str(sample["filter"])): score
            for metric in sample["metrics"]
            # Of 0 to 1 and better when higher: all that can be compared like a grader's scores.
            if better.get(metric) and (score := _number(sample.get(metric))) is not None and 0 <= score <= 1
        }
        if number in rows:
            rows[number].scores.update(scores)
            continue
        rows[number] = BenchmarkRow(
            task=task, row=sha256(f"{task} {number} {sample['doc_hash']}".encode()).hexdigest(),
            prompt=prompts[number], answer=_answer(sample), target=_target(sample), scores=scores,
        )  # fmt: skip
    return list(rows.values())


def _answer(sample: Mapping[str, Any]) -> str:
    """Return what the model answered: its text, or of given texts the likeliest."""
    replies = [each[0] if each else "" for each in sample["resps"]]
    if isinstance(replies[0], str):
        return str(replies[0])
    # Of given answers the harness keeps log-likelihoods, (value, is it the greedy one).
    likeliest = max(range(len(replies)), key=lambda number: float(replies[number][0]))
    arguments = sample["arguments"][likeliest]
    return str(arguments[1] if len(arguments) > 1 else arguments[0]).strip()


def _target(sample: Mapping[str, Any]) -> str:
    """Return the answer that was wanted; of given texts by its text, which the harness names by its number."""
    target, arguments = sample["target"], sample["arguments"]
    if isinstance(target, int) and not isinstance(target, bool) and len(sample["resps"]) > 1 and target >= 0:
        return str(arguments[target][1]).strip() if target < len(arguments) else str(target)
    return str(target)


def _name(task: str, metric: str, of: str) -> str:
    """Return what a metric is called as a grader: of letters, digits, _ . and -."""
    name = f"{task}.{metric}" if of == "none" else f"{task}.{metric}.{of}"
    return re.sub(r"[^\w.-]", "-", name)


def _number(value: Any) -> float | None:
    """Return a number or a truth as a float; None for whatever else a metric may be ("N/A", counts to be divided)."""
    try:
        return float(value) if not isinstance(value, str | tuple | list) else None
    except (TypeError, ValueError):
        return None
