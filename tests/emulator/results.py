"""The results file of a job: a CSV with a row a step, cells empty (or -1) where nothing was measured."""

import base64
import csv
import io
from collections.abc import Iterator
from typing import Any

from tests.emulator.cloud import Cloud
from tests.emulator.course import Stage
from tests.emulator.records import File, Job, identifier


def settled(cloud: Cloud, job: Job) -> Stage:
    """Return the stage that a job is in now; one that has succeeded has its results file from that moment on."""
    course = cloud.course(job)
    stage = course.stage(cloud.clock.now())
    if stage.status == "succeeded" and job.results is None:
        publish(cloud, job, course.table(), stage.time)
    return stage


def publish(cloud: Cloud, job: Job, rows: list[dict[str, Any]], created_at: float) -> None:
    """Store a job's results, in the way that its script asks for; one that is missing has an id all the same."""
    content = table(rows, "-1" if cloud.lax else "").encode()
    if job.script.results == "base64":
        content = base64.b64encode(content)
    if job.script.results == "empty":
        content = b""
    job.results = File(identifier("file-"), created_at, "results.csv", "fine-tune-results", content, created_at)
    if job.script.results != "missing":
        cloud.files[job.results.id] = job.results


def table(nested: list[dict[str, Any]], absent: str) -> str:
    """Return the rows as CSV, with all columns that occur, `step` first; nested ones by their path."""
    rows = [dict(_flat(row)) for row in nested]
    columns = ["step", *dict.fromkeys(key for row in rows for key in row if key != "step")]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, restval=absent, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _flat(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, each in value.items():
            yield from _flat(each, f"{path}/{key}" if path else key)
    elif isinstance(value, list):  # the graders, which are reported by their names
        for each in value:
            yield from _flat({key: inner for key, inner in each.items() if key not in ("name", "type")},
                             f"{path}/{each['name']}")  # fmt: skip
    else:
        yield path, value
