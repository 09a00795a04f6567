"""The page of a run: what was asked for, what the data is, how it came out, what it cost, how to use and repeat it."""

import time
from collections.abc import Mapping
from contextlib import suppress

import msgspec

from runner import backends, methods
from runner.compare import models, results, verdict
from runner.compare.results import Result
from runner.compare.rows import side_by_side
from runner.cost import duration
from runner.data.survey import Survey
from runner.graders import hidden
from runner.pages import curves
from runner.pages.base import ENVIRONMENT
from runner.plan import Run, flatten
from runner.record import files, graded, layout
from runner.record.files import read_json
from runner.record.outcome import Report
from runner.request import check

Lines = list[list[str]]

DRAWN = ("train", "eval")
"""Splits whose metrics are drawn: others are of the machine, or a service's own columns."""
SHOWN = 80
"""Characters of a version or a default that are shown."""


def write(run: Run, content: Report) -> None:
    """Write the page next to the report that it is made from, if there is room for it."""
    # The report has all that is on it. A full disk was named by what had to be written, and ends no other run's work.
    with suppress(OSError):
        files.write(run.folder / layout.REPORT_HTML, html(run, content).encode())


def html(run: Run, content: Report) -> str:
    """Return the page of a run, from its report and its folder."""
    result, survey = results.read(run.folder), read_json(run.folder / layout.SURVEY, Survey)
    sections = [
        ("Graded answers", *_graded(run)),
        ("Metrics", ["metric", "value"], _metrics(content, result)),
        ("Request", ["key", "value", "default"], _request(run)),
        ("Data", ["split", "rows", "turns", "characters of an answer, median", "fingerprint"], _data(run, survey)),
        ("Time and cost", ["step", "took"], _cost(run, content)),
        ("Versions", ["package", "version"], [[name, value[:SHOWN]] for name, value in content["versions"].items()]),
    ]
    # What is empty has no heading: a hosted run without held-out rows, say.
    return _PAGE.render(
        title=f"{content['name']}: {content['status']}",
        run=run,
        content=content,
        sections={name: (head, lines) for name, head, lines in sections if lines},
        drawings=_drawings(result.curves),
        side=side_by_side(verdict.make([result])),
        findings=[group.sentence for group in survey.findings] if survey else [],
        when=_when(content),
        use=_use(run, content),
        repeat=f"python -m runner.compare --repeat {run.handle}",
    )


def _graded(run: Run) -> tuple[list[str], Lines]:
    """Return mean scores of the base and the tuned model, with the difference and its interval."""
    if not graded.read(run.folder / graded.GRADES, graded.AnswerGrade):
        return [], []
    return models.compare_models(run.folder).table


def _metrics(content: Report, result: Result) -> Lines:
    """Return the last value of each metric that is about the model; those of the machine are in MLflow."""
    graders = {f"eval/{name}{side}" for name in result.graders for side in ("", "_before")}
    named = sorted(each for each in content["metrics"].items() if each[0] not in graders)
    return [[name, f"{value:.4g}"] for name, value in named if not name.startswith(("system/", "hosted/"))]


def _request(run: Run) -> Lines:
    """Return the keys whose values are not their defaults. A backend's `auto` has its value by now."""
    # Hidden as in request.json: a grader's configuration may have named a secret.
    asked, usual = (
        dict(flatten(hidden(check.as_composed(each)))) for each in (run.request, check.with_defaults(run.request))
    )
    return [
        [key, _said(value), _said(usual.get(key))]
        for key, value in asked.items()
        if value != usual.get(key) or key in ("method", "backend.name")
    ]


def _said(value: object) -> str:
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    return {"???": "must be given"}.get(text, text)


def _data(run: Run, found: Survey | None) -> Lines:
    if found is None:  # a run of an earlier version
        return [[name, f"{split.rows:,}", "", "", split.fingerprint[:12]] for name, split in run.plan.splits.items()]
    return [
        [
            name,
            f"{split.rows:,}",
            f"{split.turns.least} to {split.turns.greatest}",
            f"{split.answer_characters.median:,} (longest {split.answer_characters.greatest:,})",
            split.fingerprint[:12],
        ]
        for name, split in found.splits.items()
    ]


def _cost(run: Run, content: Report) -> Lines:
    lines = [[name, duration(seconds)] for name, seconds in content["seconds"].items()]
    lines += [["all steps", duration(sum(content["seconds"].values()))]] if len(lines) > 1 else []
    model = content["model"]
    if model and (tokens := model.get("trained_tokens")):
        lines.append(["trained tokens", f"{tokens:,}"])
    # Of a remote engine, which is paid by the request; a finished job's price is in its plan.
    spent = backends.of(run).cost(run, None).spent
    return [*lines, ["spent so far", f"${spent:,.2f}"]] if spent else lines


def _when(content: Report) -> str:
    moments = [content["started"], content["ended"]]
    return " to ".join(time.strftime("%Y-%m-%d %H:%M", time.localtime(each)) for each in moments if each)


def _use(run: Run, content: Report) -> Lines:
    if content["status"] != "finished":
        return []
    further = [(f"python -m runner.promote {run.handle}", "give it a name, if it is better than what has that name")]
    return [list(each) for each in (*backends.of(run).advice(run, content["results"]), *further)]


def _drawings(measured: Mapping[str, curves.Points]) -> list[curves.Drawing]:
    """Return a drawing for each metric that has a curve, its training and held-out values together; the loss first."""
    names = dict.fromkeys(name.partition("/")[2] for name in measured if name.partition("/")[0] in DRAWN)
    found = []
    # One drawing for both splits: whether they part is what one looks for.
    for name in sorted(names, key=lambda each: (each != methods.LOSS.name, each)):
        series = {split: measured.get(f"{split}/{name}", ()) for split in DRAWN}
        if made := curves.drawing(methods.metric(name).label, series):
            found.append(made)
    return found


_PAGE = ENVIRONMENT.from_string(
    """{% extends "frame.html" %}
{% macro section(name) %}{% if name in sections %}{% set head, lines = sections[name] %}
<h2>{{ name }}</h2>
"""
    # Written out: an included template does not see what a macro sets.
    + "{{ table(head, lines) }}"
    """{% endif %}{% endmacro %}
{% macro table(head, lines) %}{% include "table.html" %}{% endmacro %}
{% block content %}
<p>{{ content.message }}</p>
<p class="quiet">{{ run.plan.method }} on {{ "{:,}".format(run.plan.train.rows) }} rows, backend {{ run.plan.backend }},
  base model {{ run.plan.model.source.partition("@sha256")[0] }}. {{ when }}. Plan {{ run.plan.id }}.</p>
{% if content.graded %}<ul>{% for each in content.graded %}<li>{{ each }}.</li>{% endfor %}</ul>{% endif %}
{{ section("Graded answers") }}
{{ section("Metrics") }}
{% if drawings %}<h2>Curves</h2>
<div class="figures">{% for drawing in drawings %}"""
    + curves.TEMPLATE
    + """{% endfor %}</div>{% endif %}
{% if side %}{% include "rows.html" %}{% endif %}
{{ section("Request") }}
{{ section("Data") }}
{% if findings %}<ul>{% for each in findings %}<li>{{ each }}</li>{% endfor %}</ul>{% endif %}
{{ section("Time and cost") }}
{% if use %}<h2>Use it</h2>
{% if content.model %}<p>The model: <b>{{ content.model.model }}</b></p>{% endif %}
{{ table(["type this", "to"], use) }}{% endif %}
<h2>Repeat it</h2>
<p>This prints the command that makes the run again, and what has changed since: data, model, code and packages.</p>
<pre>{{ repeat }}</pre>
{{ section("Versions") }}
{% endblock %}
"""
)
