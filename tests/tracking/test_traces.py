"""Graded rows in MLflow: each answer a trace with its grades, base and tuned row by row, nothing doubled or lost."""

import os
import signal
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from msgspec.structs import replace
from omegaconf import OmegaConf

from runner import planning
from runner.plan import Run
from runner.record.events import Metrics, Started, StepDone
from runner.record.graded import AnswerGrade, read, write
from runner.record.journal import Journal
from runner.request import check, hydra_config
from runner.tracking import traces
from runner.tracking.sender import Sender, position_of
from tests import stores, waiting, warm
from tests.tracking import browsing, graded_rows
from tests.tracking.server import Server

pytestmark = pytest.mark.slow

ROWS = 7


class Page:
    """An experiment with a run that has graded rows in its folder, and what MLflow's pages are given of them."""

    def __init__(self, uri: str, folder: Path, experiment: str, run: str = "style") -> None:
        from mlflow import MlflowClient

        self.client: Any = MlflowClient(uri)
        self.folder = folder
        found = self.client.get_experiment_by_name(experiment)
        self.experiment = found.experiment_id if found else self.client.create_experiment(experiment)
        self.run = self.client.create_run(self.experiment, run_name=run).info.run_id

    def write(self, cap: int = traces.CAP) -> None:
        """Write what is in the folder."""
        traces.write(self.client, self.experiment, self.run, self.folder, 1_000_000.0, cap)

    @property
    def base(self) -> str:
        """The run of the base model, by its tag; there is one at most."""
        (found,) = self.client.search_runs([self.experiment], f"tags.`runner.base_of` = '{self.run}'")
        return str(found.info.run_id)

    def rows(self, run: str, spans: bool = False) -> list[Any]:
        """Return the traces of a run as a page lists them, the newest first."""
        found: list[Any] = self.client.search_traces(
            locations=[self.experiment], run_id=run, max_results=500, include_spans=spans,
            order_by=["timestamp_ms DESC"],
        )  # fmt: skip
        return found


def values(trace: Any) -> dict[str, Any]:
    """Return the assessments of a trace by name; a name that is there twice is an error."""
    found = {each.name: each for each in trace.info.assessments}
    assert len(found) == len(trace.info.assessments)
    return found


def whole(page: Page, rows: int = ROWS) -> None:
    """Check that every answer of both models is there, once, with its grades and its span."""
    for model, run in (("base", page.base), ("tuned", page.run)):
        found = page.rows(run, spans=True)
        assert [each.info.request_preview for each in found] == [
            f"{graded_rows.row_id(n)[:8]} · How do I keep {n} loaves fresh?" for n in range(rows)
        ]
        for number, trace in enumerate(found):
            (span,) = trace.data.spans
            assert span.inputs["id"] == graded_rows.row_id(number)[:8]
            assert str(span.outputs).startswith(f"{model} {number}.0: wrap")
            assert values(trace)["style"].value == graded_rows.score(number, model)


@pytest.fixture
def page(database: str, tmp_path: Path) -> Page:
    graded_rows.put(tmp_path, ROWS)
    return Page(database, tmp_path, tmp_path.name)


def test_every_answer_is_a_trace_with_the_value_and_the_reason_of_each_grader(page: Page) -> None:
    page.write()
    whole(page)
    second = values(page.rows(page.run)[1])
    assert (second["style"].value, second["style"].rationale) == (0.5, "tuned row 1 has two labels")
    assert (second["style"].source.source_type, second["style"].source.source_id) == ("CODE", "style")
    assert second["judge"].value == 0.25
    assert second["reference"].expectation.value == "cloth 1"


def test_what_a_grader_could_not_score_is_an_error_and_no_value(page: Page) -> None:
    page.write()
    for run in (page.run, page.base):
        failed = [values(each)["judge"].feedback for each in page.rows(run)]
        assert [number for number, each in enumerate(failed) if each.error] == [0, 5]
        assert failed[5].value is None
        assert failed[5].error.error_message == "row 5: the judge timed out"


def test_the_base_model_has_its_own_run_under_the_tuned_one_with_its_scores_by_the_same_names(page: Page) -> None:
    page.client.log_metric(page.run, "eval/style", 0.6)
    page.client.log_metric(page.run, "eval/style_before", 0.35)
    page.write()
    base = page.client.get_run(page.base)
    assert (base.info.run_name, base.info.status) == ("style (base)", "FINISHED")
    assert base.data.metrics == {"eval/style": 0.35}
    assert base.data.tags["mlflow.parentRunId"] == page.run
    assert "runner.plan_id" not in base.data.tags, "commands that look for runs would take it for one"


def test_a_second_call_doubles_nothing(page: Page) -> None:
    page.write()
    before = [each.to_dict() for run in (page.run, page.base) for each in page.rows(run)]
    page.write()
    assert [each.to_dict() for run in (page.run, page.base) for each in page.rows(run)] == before


def test_two_processes_that_write_the_same_trace_at_once_double_nothing(
    page: Page, monkeypatch: pytest.MonkeyPatch
) -> None:
    page.write()
    monkeypatch.setattr(traces, "_there", lambda *where: {})  # the other one has looked too early
    page.write()
    whole(page)


def test_a_run_that_is_graded_again_shows_the_new_grades_and_keeps_what_people_said(page: Page) -> None:
    from mlflow.entities import AssessmentSource, Feedback

    page.write()
    said = Feedback(name="mine", value=True, source=AssessmentSource("HUMAN", "me"))
    page.client._tracing_client.log_assessment(page.rows(page.run)[1].info.trace_id, said)
    grades = read(page.folder / "grades.jsonl", AnswerGrade)
    kept = [replace(each, score=0.125) for each in grades if each.grader == "style"]
    write(page.folder / "grades.jsonl", [*kept, *(replace(each, grader="new") for each in grades)])
    page.write()
    for run in (page.run, page.base):
        assert {values(each)["style"].value for each in page.rows(run)} == {0.125}
        assert all({"style", "new", "reference"} <= set(values(each)) for each in page.rows(run))
        assert not any("judge" in values(each) for each in page.rows(run))
    assert values(page.rows(page.run)[1])["mine"].value is True


def test_other_answers_take_the_place_of_those_before(page: Page) -> None:
    graded_rows.put(page.folder, ROWS + 2, tuned="before")
    page.write()
    graded_rows.put(page.folder, ROWS)
    page.write()
    whole(page)


KILLED = """
import sys
from pathlib import Path
from mlflow import MlflowClient
from runner.tracking import traces
uri, experiment, run, folder = sys.argv[1:]
traces.write(MlflowClient(uri), experiment, run, Path(folder), 1_000_000.0)
"""


def test_after_a_kill_the_rest_is_written_and_nothing_twice(page: Page, database: str) -> None:
    graded_rows.put(page.folder, 140)

    def written() -> int:
        with closing(sqlite3.connect(database.removeprefix("sqlite:///"))) as store:
            query = "select count(*) from trace_info where experiment_id = ?"
            return int(store.execute(query, [page.experiment]).fetchone()[0])

    process = warm.Popen([sys.executable, "-c", KILLED, database, page.experiment, page.run, str(page.folder)])
    waiting.until(lambda: written() > 110, "traces beyond the first batch", process=process)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(60)
    assert 110 < written() < 280
    page.write()
    whole(page, 140)


def test_above_the_cap_the_same_first_rows_of_both_models_are_there_and_the_run_says_so(page: Page) -> None:
    graded_rows.put(page.folder, 20, samples=2)
    page.write(cap=9)
    ids = [[each.info.request_preview for each in page.rows(run)] for run in (page.run, page.base)]
    assert ids[0] == ids[1]
    shown = [graded_rows.row_id(number)[:8] for number in range(4)]
    assert [each.split(" · ")[:-1] for each in ids[0]] == [key for row in shown for key in ([row], [row, "1"])]
    note = "4 of 20 rows; all of them are in the artifacts answers.jsonl and grades.jsonl"
    assert page.client.get_run(page.run).data.tags["runner.graded_rows"] == note


def test_a_graders_configuration_reaches_no_trace(page: Page, database: str) -> None:
    secret = "sk-of-the-judge-4711"
    (page.folder / "request.json").write_text(f'{{"graders": [{{"type": "score_model", "api_key": "{secret}"}}]}}')
    page.write()
    store = Path(database.removeprefix("sqlite:///"))
    assert not [each for each in store.parent.rglob("*") if each.is_file() and secret.encode() in each.read_bytes()]


@pytest.fixture
def run(database: str, tmp_path: Path, tiny_model: Path, pairs_file: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run whose step `grade` is the last that its journal holds."""
    monkeypatch.chdir(tmp_path)
    line = [f"model.source=path:{tiny_model}", "dataset=files", f"dataset.train={pairs_file}",
            f"tracking.uri={database}", f"tracking.experiment={tmp_path.name}"]  # fmt: skip
    hydra_config.register()
    with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
        composed: Any = OmegaConf.to_container(compose("config", line), resolve=True)
    made = planning.make(check.request(composed)).run
    journal = Journal(made.folder / "journal.jsonl")
    journal.add(Started("here", {}))
    graded_rows.put(made.folder, ROWS)
    journal.add(Metrics(3, {"eval/style": 0.6, "eval/style_before": 0.35}))
    journal.add(StepDone("grade", "key", 1.0, {}))
    (made.folder / "report.md").write_text("report")
    return made


def test_the_rows_of_a_run_are_sent_when_it_has_graded_them_and_whole_as_artifacts(run: Run, tmp_path: Path) -> None:
    Sender(run, position_of(run)).send()
    (run.folder / "tracking.json").unlink()  # as after a kill before it was noted
    Sender(run, position_of(run)).send("finished")
    page = Page.__new__(Page)
    sender, position = Sender(run, position_of(run)), position_of(run)
    page.client, page.experiment, page.run = sender.client, position.experiment_id, position.run_id
    whole(page)
    assert page.client.get_run(page.base).data.metrics == {"eval/style": 0.35}
    kept = page.client.download_artifacts(page.run, "grades.jsonl", str(tmp_path))
    assert read(Path(kept), AnswerGrade) == read(run.folder / "grades.jsonl", AnswerGrade)
    assert {each.path for each in page.client.list_artifacts(page.run)} >= {"answers.jsonl", "problems.jsonl"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    stores.put_empty(folder)
    made = Server(folder, f"sqlite:///{folder}/mlflow.db")
    yield made
    made.kill()


def test_a_server_takes_the_same_rows(server: Server, tmp_path: Path) -> None:
    graded_rows.put(tmp_path, ROWS)
    page = Page(server.uri, tmp_path, tmp_path.name)
    page.write()
    whole(page)
    before = [each.to_dict() for each in page.rows(page.run)]
    page.write()
    assert [each.to_dict() for each in page.rows(page.run)] == before


def test_a_runs_page_shows_its_rows_and_sets_another_run_next_to_them(
    server: Server, browser: Any, tmp_path: Path
) -> None:
    for name in ("beta 0.2", "beta 0.05"):
        graded_rows.put(tmp_path / name, 24, tuned=name)
        page = Page(server.uri, tmp_path / name, "side by side", name)
        page.write()

    def shows(row: int, *texts: str) -> bool:
        """Return whether one row of the page, and no other with it, holds some texts."""
        known = " and ".join(f"contains(., '{text}')" for text in (f"keep {row} loaves", *texts))
        others = f"contains(., 'keep {row + 1} loaves') or contains(., 'keep {row - 1} loaves')"
        return bool(browser.find_elements("xpath", f"//*[{known} and not({others})]"))

    def click(text: str) -> None:
        def found() -> Any:
            return browser.find_elements("xpath", f"//*[normalize-space(text())='{text}']")

        browsing.wait(lambda: bool(found()), browser, f"to click {text}")
        browsing.close_assistant(browser)
        found()[-1].click()

    browser.get(f"{server.uri}/#/experiments/{page.experiment}/runs/{page.run}?workflowType=machine_learning")
    reported = (
        "//*[normalize-space(text())='Model metrics']"  # next to the tab; "Traces" at the left is the experiment's
    )
    browsing.wait(lambda: bool(browser.find_elements("xpath", reported)), browser, "tabs")
    click("Traces")
    browsing.wait(lambda: shows(1, "beta 0.05 1.0: wrap", "0.5"), browser, "graded_rows")
    assert browser.find_elements("xpath", "//*[normalize-space(text())='Error']"), "row 0 has no grade from the judge"
    click("baseline run")
    click("beta 0.05 (base)")
    browsing.wait(lambda: shows(1, "beta 0.05 1.0: wrap", "base 1.0: wrap"), browser, "base_and_tuned")
    assert shows(2, "beta 0.05 2.0: wrap", "base 2.0: wrap")
    click("beta 0.05 (base)")
    click("beta 0.2")
    browsing.wait(lambda: shows(1, "beta 0.05 1.0: wrap", "beta 0.2 1.0: wrap"), browser, "two_runs")
    assert shows(2, "beta 0.05 2.0: wrap", "beta 0.2 2.0: wrap")
