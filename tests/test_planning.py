"""Plans of other versions, whose folders are read as they are or refused in a sentence; and what a plan shows once."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from runner import api, planning
from runner.errors import RequestError
from runner.execution import execute
from runner.plan import Run
from runner.record import layout, run_folders


def planned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return the default run, planned for three rows in an empty folder; it is not executed."""
    monkeypatch.chdir(folder)
    return api.plan("dataset.max_rows=3", "tracking=none", "mode=plan", "backend.dtype=float32").run


def test_a_plan_of_an_earlier_format_is_another_plan_and_can_still_be_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = planned(tmp_path, monkeypatch)
    earlier = replace(now, plan=replace(now.plan, format=now.plan.format - 1), folder=tmp_path / "runs" / "earlier")
    earlier.folder.mkdir(parents=True)
    execute.keep(earlier)
    assert planning.load(earlier.folder).plan.id == earlier.plan.id != now.plan.id
    assert run_folders.of_plan(now.plan.id, tmp_path / "runs") is None


@pytest.mark.parametrize("content", ["[]", "null", "{"])
def test_a_request_of_a_run_that_is_damaged_is_named_in_a_sentence(
    content: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(tmp_path, monkeypatch)
    run.folder.mkdir(parents=True)
    execute.keep(run)
    (run.folder / layout.REQUEST).write_text(content)
    with pytest.raises(RequestError, match=r"request\.json: is no request that this version reads"):
        planning.load(run.folder)


def test_a_plan_that_this_version_cannot_read_is_refused_in_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = planned(tmp_path, monkeypatch)
    run.folder.mkdir(parents=True)
    execute.keep(run)
    (run.folder / layout.PLAN).write_bytes(msgspec.json.encode({"format": 1, "method": "dpo"}))
    with pytest.raises(RequestError, match=r"plan\.json: is no plan that this version reads .* plans of format 2;"):
        planning.load(run.folder)


def test_a_reward_that_is_named_for_the_evaluation_too_is_shown_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    request = "+experiments=rft_sentiment", "mode=plan", "tracking=none"
    assert [each.name for each in api.plan(*request).rehearsed] == ["sentiment"]
    further = api.plan(*request, 'evaluation.graders=["${rft.grader}",length]')
    assert [each.name for each in further.rehearsed] == ["sentiment", "short"]
