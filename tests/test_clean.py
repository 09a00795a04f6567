"""`python -m runner.clean`: only what a run created is removed, only after asking, and as often as one likes."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from runner.record.events import Removed
from tests.emulator import Fault
from tests.emulator.records import File
from tests.hosted_cli import ALONE, ENDLESS, LINE, Hosted, hosted, read_state, records, sentence, steps

pytestmark = pytest.mark.slow

KEEP = "backend.deploy=keep"
NOTHING = "Nothing that these runs created is left at the service."


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path) as here:
        here.cloud.add_deployment("theirs", "gpt-4o")
        here.cloud.files["file-theirs"] = File("file-theirs", 1.0, "theirs.jsonl", "fine-tune", b"{}", 1.0)
        yield here
        assert "theirs" in here.cloud.deployments
        assert "file-theirs" in here.cloud.files


def clean(here: Hosted, *line: str, typed: str = "") -> list[str]:
    """Run the command and return the lines it says."""
    process = here.command("runner.clean", *line, typed=typed)
    assert process.returncode == 0, process.stdout + process.stderr
    return process.stdout.strip().splitlines()


def ours(here: Hosted) -> list[str]:
    """Return the ids of the files and deployments of ours that exist at the service."""
    standing = [name for name, each in here.cloud.deployments.items() if each.deleted_at is None]
    files = [name for name, each in here.cloud.files.items() if each.purpose == "fine-tune"]
    return sorted(name for name in standing + files if "theirs" not in name)


def removals(here: Hosted) -> list[str]:
    """Return what the service was asked to remove."""
    return [request.path for request in here.cloud.requests if request.method == "DELETE"]


def test_nothing_is_removed_without_a_yes(here: Hosted) -> None:
    run = here.run(ALONE)
    before = ours(here)
    for typed in ("", "\n", "n\n", "maybe\n"):
        said = clean(here, typed=typed)
        assert said[0].strip() == "Created by these runs"
        assert [name for name in before if any(name in line and run.name in line for line in said)] == before
        assert said[-1].endswith("Nothing was removed.")
        assert ours(here) == before
        assert removals(here) == []


def test_after_a_yes_all_that_the_run_created_is_gone_and_twice_is_harmless(here: Hosted) -> None:
    run = here.run(KEEP)
    before = ours(here)
    assert len(before) == 3
    said = clean(here, run.name, typed="y\n")
    deployment = read_state(run).results["deploy"]["deployment"]
    assert said[-3].endswith(f"removed: deployment {deployment}")
    assert [line.startswith("removed: file ") for line in said[-2:]] == [True, True]
    assert ours(here) == []
    assert read_state(run).created.keys() == {("job", here.job(run))}
    assert clean(here, run.name, "--yes") == [NOTHING]
    assert clean(here) == [NOTHING]
    assert len(removals(here)) == 3
    assert here.status(here.job(run)) == "succeeded"


def test_only_the_run_that_is_named_is_cleaned(here: Hosted) -> None:
    one, two = here.run(ALONE, "name=one"), here.run(ALONE, "name=two", "seed=1", "dataset.max_rows=12")
    mine = {name for what, name in read_state(one).created if what == "file"}
    theirs = {name for what, name in read_state(two).created if what == "file"}
    assert mine.isdisjoint(theirs)
    # Files of a job that still runs are kept.
    jobs = [here.job(run) for run in (one, two)]
    here.wait(lambda: {here.status(job) for job in jobs} == {"succeeded"}, f"the jobs {jobs} to succeed")
    clean(here, two.name, "--yes")
    assert set(ours(here)) == mine
    clean(here, one.name.rpartition("-")[2], "--yes")
    assert ours(here) == []


def test_a_file_that_a_job_still_uses_is_kept_whoever_created_it(here: Hosted) -> None:
    one = here.run("name=one")
    here.cloud.script = ENDLESS
    two = here.run(ALONE, "name=two", "seed=1")
    assert {what for what, _ in read_state(two).created} == {"job"}
    before = ours(here)
    assert clean(here, two.name, "--yes") == [NOTHING]
    said = clean(here, one.name, "--yes")
    assert [line for line in said if line.startswith("kept: ")] == [
        f"kept: file {name}, which {here.job(two)} still uses" for name in files(one)
    ]
    assert ours(here) == before
    assert here.status(here.job(two)) == "running"
    here.cloud.cancel_from_portal(here.job(two))
    clean(here, "--yes")
    assert ours(here) == []


def files(run: Path) -> list[str]:
    return [name for what, name in read_state(run).created if what == "file"]


def test_the_files_of_a_run_under_way_are_kept(here: Hosted) -> None:
    here.cloud.script = ENDLESS
    run = here.run(ALONE)
    assert sum(line.startswith("kept: file ") for line in clean(here, "--yes")) == 2
    assert removals(here) == []
    assert here.status(here.job(run)) == "running"


def test_what_was_removed_elsewhere_already_is_removed_all_the_same(here: Hosted) -> None:
    run = here.run(KEEP)
    for name in ours(here):
        here.cloud.files.pop(name, None)
        here.cloud.deployments.pop(name, None)
    assert sum(line.startswith("removed: ") for line in clean(here, "--yes")) == 3
    assert clean(here, run.name) == [NOTHING]


def test_after_cleaning_the_same_command_deploys_again_and_does_nothing_else_again(here: Hosted) -> None:
    run = here.run(KEEP)
    deployment = read_state(run).results["deploy"]["deployment"]
    clean(here, "--yes")
    assert ours(here) == []
    assert here.run(KEEP) == run
    assert ours(here) == [deployment]
    assert steps(run) == ["upload", "create", "follow", "results", "save", "deploy", "sample", "deploy"]
    assert (len(here.cloud.created_jobs), len(here.cloud.created_files)) == (1, 2)
    assert sum(line.startswith("removed: ") for line in clean(here, "--yes")) == 1
    assert ours(here) == []


def test_files_without_a_job_are_removed_and_uploaded_again(here: Hosted) -> None:
    refusing = Fault("POST /fine_tuning/jobs", "status", times=None, status=400)
    here.cloud.inject(refusing)
    run = here.run(code=2)
    assert steps(run) == ["upload"]
    clean(here, "--yes")
    assert ours(here) == []
    refusing.left = 0
    assert here.run() == run
    assert steps(run) == ["upload", "upload", "create", "follow", "results", "save"]
    assert (len(here.cloud.created_files), len(here.cloud.created_jobs)) == (4, 1)


def test_what_was_removed_before_a_failure_is_not_removed_again(here: Hosted) -> None:
    run = here.run(KEEP, "backend.polling.patience=0.5")
    failing = Fault("DELETE /files/{id}", "status", times=None, skip=1, status=500)
    here.cloud.inject(failing)
    reported = sentence(here.command("runner.clean", "--yes"), code=1)
    assert reported.startswith("removing the file file-")
    (left,) = ours(here)
    gone = [each.event.id for each in records(run) if isinstance(each.event, Removed)]
    assert len(gone) == 2
    assert gone[0] == read_state(run).results["deploy"]["deployment"]
    assert left not in gone
    failing.left = 0
    assert [line for line in clean(here, "--yes") if line.startswith("removed")] == [f"removed: file {left}"]
    assert ours(here) == []


def test_a_run_that_another_process_follows_is_not_cleaned(here: Hosted) -> None:
    here.cloud.script = ENDLESS
    run = here.run(ALONE)
    with here.started("runner.watch", run.name) as process:
        here.held(run, process)
        reported = sentence(here.command("runner.clean", "--yes"), code=1)
    assert f"process {process.pid} " in reported
    assert removals(here) == []


def test_a_folder_without_hosted_runs_has_nothing_to_clean(here: Hosted) -> None:
    assert clean(here) == [NOTHING]
    assert here.cloud.requests == []


@pytest.mark.parametrize(
    ("line", "reported"),
    [(["nothing"], "run nothing: not found; runs/ is empty."),
     (["--force"], "python -m runner.clean: unrecognized arguments: --force; ")],
    ids=["name", "flag"],
)  # fmt: skip
def test_a_wrong_name_is_reported_and_nothing_is_removed(line: list[str], reported: str, here: Hosted) -> None:
    assert sentence(here.command("runner.clean", *line)).startswith(reported)
    assert here.cloud.requests == []


@pytest.mark.exhaustive  # by its path: the test below
def test_a_run_is_named_by_its_folder_however_that_is_written(here: Hosted) -> None:
    run = here.run(ALONE)
    assert NOTHING not in clean(here, str(run.resolve()))


def test_a_run_in_another_folder_is_cleaned_by_its_path(here: Hosted) -> None:
    process = here.command("runner", *LINE, "runs_folder=elsewhere")
    assert process.returncode == 0, process.stderr
    (run,) = here.folder.glob("elsewhere/*")
    clean(here, f"elsewhere/{run.name}", "--yes")
    assert ours(here) == []
