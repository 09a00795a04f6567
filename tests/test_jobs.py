"""`python -m runner.jobs`: what is listed of the service's jobs, and what is done to them by id or by run."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from tests.emulator import Script
from tests.hosted_cli import ALONE, ENDLESS, LINE, QUICK, Hosted, hosted, read_state, sentence

pytestmark = pytest.mark.slow


NO_ENDPOINT = {"AZURE_AI_PROJECT_ENDPOINT": "", "FOUNDRY_PROJECT_ENDPOINT": ""}


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Hosted]:
    with hosted(tmp_path, ENDLESS) as here:
        yield here


def listed(here: Hosted) -> list[str]:
    process = here.command("runner.jobs")
    assert process.returncode == 0, process.stderr
    return process.stdout.splitlines()


def test_a_service_without_jobs_has_an_empty_list(here: Hosted) -> None:
    title, head, *rest = listed(here)
    assert title.strip() == here.cloud.endpoint
    assert head.split() == ["job", "state", "age", "run", "model"]
    assert "".join(rest).strip() == ""


def test_jobs_are_listed_newest_first_with_state_age_and_run(here: Hosted) -> None:
    run = here.run(ALONE)
    mine = here.cloud.jobs[here.job(run)]
    mine.created_at -= 7200
    mine.script = Script(running_seconds=10**6)
    others = {"metadata": {"runner_plan_id": "0123456789abcdef"}}, {"metadata": None}, {"metadata": {"runner": "no"}}
    for number, keys in enumerate(others):
        made = replace(mine, id=f"ftjob-{number}", created_at=mine.created_at + 7170, signals=[], **keys)  # type: ignore[arg-type]
        here.cloud.jobs[made.id] = made
    here.cloud.fail("ftjob-2", {"code": "bad", "message": "It broke."})
    lines = [line.split("  ") for line in listed(here) if line.startswith("ftjob-")]
    rows = [[cell.strip() for cell in line if cell.strip()] for line in lines]
    assert [row[0][:7] for row in rows] == ["ftjob-2", "ftjob-1", "ftjob-0", mine.id[:7]]
    assert [row[1] for row in rows] == ["failed", "running", "running", "running"]
    assert [row[4] for row in rows] == ["gpt-4.1-mini"] * 4
    assert rows[3][2].startswith("2 h 0 min")
    assert rows[0][2].endswith(" s")
    assert [row[3] for row in rows] == ["not the runner's", "not the runner's", "plan 01234567, not here", run.name]


def test_a_list_that_is_piped_on_has_whole_ids_and_runs(here: Hosted) -> None:
    run = here.run(ALONE)
    (line,) = (line for line in listed(here) if line.startswith("ftjob-"))
    assert {here.job(run), run.name} <= set(line.split())


def test_a_list_that_is_piped_on_has_the_whole_names_of_tuned_models(here: Hosted) -> None:
    here.cloud.script = Script(0.01, 0.01, 0.01)
    job = here.job(here.run())
    (line,) = (line for line in listed(here) if line.startswith("ftjob-"))
    assert here.cloud.jobs[job].fine_tuned_model in line.split()


# A plan's id finds a run as its name does.
@pytest.mark.parametrize("by", ["id", "run", pytest.param("plan", marks=pytest.mark.exhaustive)])
def test_a_job_is_paused_resumed_and_cancelled_by_its_id_or_its_run(by: str, here: Hosted) -> None:
    run = here.run(ALONE)
    job = here.job(run)
    name = {"id": job, "run": run.name, "plan": run.name.rpartition("-")[2]}[by]
    here.wait(lambda: here.status(job) == "running", f"{job} to run")
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        process = here.command("runner.jobs", verb, name)
        assert process.returncode == 0, process.stderr
        assert process.stdout.startswith(f"{job}: ")
        here.wait(partial(is_now, here, job, state), f"{job} to be {state}")
    assert len(here.cloud.created_jobs) == 1


def is_now(here: Hosted, job: str, state: str) -> bool:
    return here.status(job) == state


def test_several_jobs_are_cancelled_by_one_command_and_others_continue(here: Hosted) -> None:
    assert here.command("runner", "-m", *LINE, ALONE, "name=run", "seed=0,1,2").returncode == 0
    runs = sorted(here.folder.glob("runs/run-*"))
    process = here.command("runner.jobs", "cancel", runs[0].name, here.job(runs[2]))
    assert process.returncode == 0, process.stderr
    assert process.stdout.splitlines() == [f"{here.job(runs[0])}: cancelled", f"{here.job(runs[2])}: cancelled"]
    assert [here.status(here.job(run)) for run in runs] == ["cancelled", "running", "cancelled"]
    reported = here.command("runner.watch", runs[0].name)
    assert reported.returncode == 1
    assert "the job was cancelled at the service" in reported.stderr


def test_what_the_service_refuses_is_reported_in_its_words(here: Hosted) -> None:
    run = here.run(ALONE)
    job = here.job(run)
    reported = sentence(here.command("runner.jobs", "resume", job))
    assert reported.startswith(f"resume {job}: 400 invalidOperation: Job {job} is ")
    here.cloud.cancel_from_portal(job)
    assert f"Job {job} is cancelled" in sentence(here.command("runner.jobs", "cancel", run.name))


WRONG = [
    (["cancel"], "python -m runner.jobs: cancel: no JOB is named; "),
    (["stop", "ftjob-1"], "python -m runner.jobs: argument verb: invalid choice: 'stop' "),
    (["--all"], "python -m runner.jobs: unrecognized arguments: --all; "),
    (["ftjob-1"], "python -m runner.jobs: argument verb: invalid choice: 'ftjob-1' "),
    (["cancel", "nothing"], "run nothing: not found; runs/ is empty."),
    (["cancel", "ftjob-nothing"], "cancel ftjob-nothing: 404 "),
]


def test_a_wrong_name_is_reported_and_nothing_is_changed(here: Hosted) -> None:
    for line, reported in WRONG:
        assert sentence(here.command("runner.jobs", *line)).startswith(reported)
    assert all(request.method == "GET" or request.path.endswith("/cancel") for request in here.cloud.requests)


def test_a_name_that_fits_several_runs_is_reported(here: Hosted) -> None:
    assert here.command("runner", "-m", *LINE, ALONE, "name=run", "seed=0,1").returncode == 0
    assert sentence(here.command("runner.jobs", "cancel", "run")).startswith("run run: several runs fit; ")
    assert all(here.status(job) == "running" for job in here.cloud.jobs)


def test_without_an_endpoint_its_variable_is_named(here: Hosted) -> None:
    reported = sentence(here.command("runner.jobs", variables=NO_ENDPOINT))
    assert reported.startswith("AZURE_AI_PROJECT_ENDPOINT: not set; ")


def test_the_endpoint_is_that_of_the_newest_hosted_run(here: Hosted) -> None:
    run = here.run(ALONE, f"backend.azure.endpoint={here.cloud.endpoint}")
    process = here.command("runner.jobs", "cancel", run.name, variables=NO_ENDPOINT)
    assert process.returncode == 0, process.stderr
    assert here.status(here.job(run)) == "cancelled"


ELSEWHERE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.CognitiveServices/accounts/far"


def test_a_checkpoint_is_copied_to_another_resource_once_and_its_state_shown_again(here: Hosted) -> None:
    here.cloud.script = QUICK
    run = here.run("evaluation.samples=0")
    early, last = read_state(run).results["save"]["checkpoints"]
    to = ("--to", ELSEWHERE, "--region", "westus3")
    refused = sentence(here.command("runner.jobs", "copy", run.name, "--to", "far", "--region", "westus3"))
    assert "destinationResourceId must be a resource's id" in refused
    for state in ("Running", "Succeeded"):
        here.cloud.deployment_seconds = 3600
        copied = here.command("runner.jobs", "copy", f"{run.name}@{early['step']}", *to)
        assert copied.returncode == 0, copied.stderr
        assert copied.stdout.strip() == f"{early['model'].removeprefix('hosted:')}: {state}"
        here.cloud.advance(3600)
    (copy,) = here.cloud.copies.values()
    assert (copy["destinationResourceId"], copy["region"]) == (ELSEWHERE, "westus3")
    assert here.command("runner.jobs", "copy", run.name, *to).returncode == 0
    assert list(here.cloud.copies) == [each["model"].removeprefix("hosted:") for each in (early, last)]
    reported = sentence(here.command("runner.jobs", "copy", f"{run.name}@7", *to))
    assert reported == f"{run.name}@7: there is no such checkpoint; allowed: {early['step']}, {last['step']}."
    assert "copy takes --to RESOURCE and --region" in here.command("runner.jobs", "copy", run.name).stderr
