"""Graded rows in MLflow's evaluation pages: a trace for each answer, with an assessment for each of its grades.

The base model's answers belong to a run of their own, "NAME (base)", folded under the run that graded them: MLflow's
pages compare any two runs row by row, so base and tuned, or two runs, are set side by side in the same way. They pair
two rows whose request previews are equal (seen in MLflow 3.17), hence a preview begins with the row's id, which is the
same wherever a row is asked.
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from runner.record import graded
from runner.record.graded import Answer, AnswerGrade, Asked
from runner.record.layout import ANSWERS, GRADES, PROBLEMS
from runner.tracking.graded_answers import PREVIEW_CHARACTERS, GradedAnswer, first_rows, join

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Assessment, Span, TraceInfo
    from mlflow.tracing.client import TracingClient

CAP = 500
"""Answers of a model that become traces at most; each takes some 30 ms."""
BATCH = 100
"""Traces between two writes of their spans, which are cheap only together: 4 ms each instead of 30."""
FIELDS = 5
"""Fields of a row that are shown as expectations at most; each takes a column of the page."""
BASE_OF, ROWS = "runner.base_of", "runner.graded_rows"
"""Tags: of a base model's run, the run that it belongs to; of both, how many of the rows are there."""
ANSWER, GRADED = "runner.answer", "runner.graded"
"""Tags of a trace: hashes of the answer, and of the grades and fields, that it shows. A run may be graded again."""


def write(
    client: "MlflowClient", experiment_id: str, run_id: str, folder: Path, graded_at: float, cap: int = CAP,
    with_base: bool = True,
) -> None:  # fmt: skip
    """Write the graded rows of a run's folder as traces of its MLflow run, and of one for its base model.

    Without `with_base` only the run's own: the trials of a sweep have the same base model, and a run for each of its
    copies would double the table of runs.

    `graded_at` is when they were graded, in seconds since 1970. A second call, or one after a kill, writes what is
    missing and nothing twice; after other graders, or answers, it brings up to date what has changed. Rows beyond `cap`
    answers of a model stay out, the same of both models; the tag `runner.graded_rows` says so. Raises whatever MLflow
    does.
    """
    has_base = with_base and any(each.model == "base" for each in graded.read(folder / ANSWERS, Answer))
    runs = {"tuned": run_id}
    if has_base:
        runs = {"base": _base_run(client, experiment_id, run_id, graded_at), **runs}
    write_models(client, experiment_id, runs, folder, graded_at, cap)
    if has_base:
        client.update_run(runs["base"], "FINISHED")


def write_models(
    client: "MlflowClient",
    experiment_id: str,
    runs: Mapping[str, str],
    folder: Path,
    graded_at: float,
    cap: int = CAP,
) -> None:
    """Write the graded rows of a folder as traces, each model's to the run whose id `runs` has by the model's name.

    What is said of `write` holds.
    """
    answers = graded.read(folder / ANSWERS, Answer)
    problems = graded.read(folder / PROBLEMS, Asked)
    # Whole rows, the same of both models: half a row could not be compared with the other run's.
    kept = first_rows(problems, answers, cap)
    rows = f"{len(kept)} of {len(problems)} rows"
    if len(kept) < len(problems):
        rows += f"; all of them are in the artifacts {ANSWERS} and {GRADES}"
    by_model = join(kept, answers, graded.read(folder / GRADES, AnswerGrade))
    for model, run_id in runs.items():
        if model in by_model:
            _write(client, experiment_id, run_id, by_model[model], graded_at)
            client.set_tag(run_id, ROWS, rows)


def _base_run(client: "MlflowClient", experiment_id: str, run_id: str, graded_at: float) -> str:
    """Return the id of the run of the base model's answers, found or created, with its scores as metrics."""
    from mlflow.entities import Metric

    run = client.get_run(run_id)
    found = client.search_runs([experiment_id], f"tags.`{BASE_OF}` = '{run_id}'", max_results=1)
    tags = {BASE_OF: run_id, "mlflow.parentRunId": run_id}
    made = found[0] if found else client.create_run(experiment_id, tags=tags, run_name=f"{run.info.run_name} (base)")
    metrics = [
        Metric(name.removesuffix("_before"), value, int(graded_at * 1000), 0)
        for name, value in run.data.metrics.items()
        if name.startswith("eval/") and name.endswith("_before")
    ]
    client.log_batch(made.info.run_id, metrics=metrics)
    return str(made.info.run_id)


def _write(
    client: "MlflowClient", experiment_id: str, run_id: str, rows: Sequence[GradedAnswer], graded_at: float
) -> None:
    from mlflow.tracing.client import TracingClient as Client

    tracing = Client(client.tracking_uri)
    wanted = {_trace_id(run_id, row): row for row in rows}
    there = _there(client, experiment_id, run_id)
    gone = [each for each, info in there.items() if each not in wanted or not _has_answer(info, wanted[each])]
    for start in range(0, len(gone), BATCH):
        # An answer that was sampled again is another row; its old grades would otherwise be shown with the new ones.
        tracing.delete_traces(experiment_id, trace_ids=gone[start : start + BATCH])
    there = {trace_id: info for trace_id, info in there.items() if trace_id not in gone}
    # the page shows the newest first: so that is the first row
    times = {trace_id: int(graded_at * 1000) - number for number, trace_id in enumerate(wanted)}
    ids = list(wanted)
    for start in range(0, len(ids), BATCH):
        batch = ids[start : start + BATCH]
        for each in batch:
            trace = _trace(each, experiment_id, run_id, wanted[each], times[each])
            if each not in there or there[each].tags.get(GRADED) != trace.tags[GRADED]:
                _drop_stale(tracing, there.get(each), trace)
                tracing.start_trace(trace)
        # A process may have died between trace and span: a trace without one cannot be opened on the page.
        bare = [each for each in batch if each not in there or not _has_span(there[each])]
        tracing.log_spans(experiment_id, [_span(each, wanted[each], times[each]) for each in bare])


def _there(client: "MlflowClient", experiment_id: str, run_id: str) -> dict[str, "TraceInfo"]:
    """Return by id the traces of a run that are answers; others may have been added by people."""
    found: dict[str, TraceInfo] = {}
    token = None
    while True:
        page = client.search_traces(
            locations=[experiment_id], run_id=run_id, max_results=500, page_token=token, include_spans=False
        )
        # Without spans, which hold answers in full: only the tags are looked at.
        found |= {trace.info.trace_id: trace.info for trace in page if ANSWER in trace.info.tags}
        token = page.token
        if not token:
            return found


def _has_answer(info: "TraceInfo", row: GradedAnswer) -> bool:
    return info.tags[ANSWER] == _hash(row.inputs, row.outputs)


def _has_span(info: "TraceInfo") -> bool:
    from mlflow.tracing.constant import SpansLocation, TraceTagKey

    return bool(info.tags.get(TraceTagKey.SPANS_LOCATION) == SpansLocation.TRACKING_STORE)


def _drop_stale(tracing: "TracingClient", old: "TraceInfo | None", new: "TraceInfo") -> None:
    """Delete the grades of graders that are not asked any more; what people have said of the answer stays."""
    kept = {each.assessment_id for each in new.assessments}
    for each in old.assessments if old else ():
        if each.assessment_id not in kept and each.assessment_id == _assessment_id(new.trace_id, each):
            tracing.delete_assessment(new.trace_id, each.assessment_id)


def _trace_id(run_id: str, row: GradedAnswer) -> str:
    # By content and not at random, so that a second process writes the same traces and no others.
    return f"tr-{_hash(run_id, row.answer.row, row.answer.sample)}"


def _assessment_id(trace_id: str, assessment: "Assessment") -> str:
    """Return an assessment's id: with one of its own, two writers of a trace would double what it holds."""
    return f"a-{_hash(trace_id, type(assessment).__name__, assessment.name)}"


def _hash(*parts: object) -> str:
    return hashlib.sha256(msgspec.json.encode(parts)).hexdigest()[:32]


def _trace(trace_id: str, experiment_id: str, run_id: str, row: GradedAnswer, time: int) -> "TraceInfo":
    """Return all of a trace but its span: it is written in one transaction; `time` in milliseconds."""
    from mlflow.entities import TraceInfo, TraceLocation, TraceState
    from mlflow.tracing.constant import TraceMetadataKey, TraceTagKey

    outputs = row.outputs
    shown = outputs if isinstance(outputs, str) else msgspec.json.encode(outputs).decode()
    return TraceInfo(
        trace_id,
        TraceLocation.from_experiment_id(experiment_id),
        time,
        TraceState.OK,
        request_preview=row.request,
        response_preview=shown[:PREVIEW_CHARACTERS],
        execution_duration=0,
        trace_metadata={TraceMetadataKey.SOURCE_RUN: run_id},
        tags={
            TraceTagKey.TRACE_NAME: row.answer.model,
            ANSWER: _hash(row.inputs, row.outputs),
            GRADED: _hash(row.grades, row.asked.fields),
        },
        assessments=list(_assessments(trace_id, row, time)),
    )


def _assessments(trace_id: str, row: GradedAnswer, time: int) -> Iterable["Assessment"]:
    """Yield a row's grades, then its other fields: what graders measured an answer by."""
    from mlflow.entities import AssessmentError, AssessmentSource, Expectation, Feedback

    made: list[Assessment] = []
    for grade in row.grades:
        error = AssessmentError("GRADER_ERROR", grade.error) if grade.score is None else None
        made.append(
            Feedback(
                name=grade.grader, value=grade.score, error=error, rationale=grade.reason or None,
                source=AssessmentSource("CODE", grade.grader), metadata={k: str(v) for k, v in grade.parts.items()},
            )
        )  # fmt: skip
    for name, value in list(row.asked.fields.items())[:FIELDS]:
        if value is None:
            continue  # MLflow knows no such expectation
        made.append(Expectation(name=name, value=value, source=AssessmentSource("CODE", row.asked.place or PROBLEMS)))
    for each in made:
        each.assessment_id = _assessment_id(trace_id, each)
        each.create_time_ms = each.last_update_time_ms = time
    return made


def _span(trace_id: str, row: GradedAnswer, time: int) -> "Span":
    """Return the only span of a trace: without one the pages cannot open a row, nor show an answer in full."""
    from mlflow.entities import Span, SpanType
    from mlflow.tracing.constant import SpanAttributeKey

    # As MLflow's own tracing writes them: each value is JSON within the JSON of the span.
    attributes: dict[str, object] = {
        SpanAttributeKey.REQUEST_ID: trace_id,
        SpanAttributeKey.SPAN_TYPE: SpanType.LLM,
        SpanAttributeKey.INPUTS: row.inputs,
        SpanAttributeKey.OUTPUTS: row.outputs,
    }
    return Span.from_dict(
        {
            "trace_id": trace_id, "span_id": _hash(trace_id)[:16], "parent_span_id": None,
            "name": row.answer.model, "status": {"code": "STATUS_CODE_OK"},
            "start_time_unix_nano": time * 1_000_000, "end_time_unix_nano": time * 1_000_000,
            "attributes": {key: msgspec.json.encode(value).decode() for key, value in attributes.items()},
        }
    )  # fmt: skip
