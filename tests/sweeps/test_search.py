"""`hydra/sweeper=optuna`: the space is read from Hydra's grammar, and a search survives its process."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser

from runner.errors import RequestError
from runner.record.journal import read
from runner.sweeps.optuna_study import Pruner, Settings, Study, space
from tests import waiting, warm
from tests.sweeps.conftest import Here

RATE = "dpo.learning_rate_multiplier=tag(log, interval(0.1, 10))"
SEARCH = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", RATE, "dpo.beta=0.05,0.1", "tracking=none")


def parsed(*typed: str) -> Any:
    return OverridesParser.create().parse_overrides(list(typed))


def settings(**more: Any) -> Settings:
    known = {"metric": "eval/loss", "n_trials": 12, "n_jobs": 1, "sampler": "tpe", "pruner": "none", "seed": 0}
    return Settings(**known | more)


def test_a_space_is_what_hydras_grammar_says() -> None:
    found = space(parsed("a=1", "b=x,y", "c=interval(0.5, 2)", "d=tag(int, log, interval(1, 64))", "e=range(1, 4)"))
    assert found.fixed == ("a=1",)
    assert {key: str(kind) for key, kind in found.free.items()} == {
        "b": "CategoricalDistribution(choices=('x', 'y'))",
        "c": "FloatDistribution(high=2.0, log=False, low=0.5, step=None)",
        "d": "IntDistribution(high=64, log=True, low=1, step=1)",
        "e": "CategoricalDistribution(choices=('1', '2', '3'))",
    }


def test_each_end_is_planned_before_anything_starts() -> None:
    ends = list(space(parsed("a=1", "b=x,y", "c=interval(0.5, 2)")).ends())
    assert ends == [["a=1", "b=x", "c=0.5"], ["a=1", "b=y", "c=0.5"], ["a=1", "b=x", "c=2"]]


def test_values_have_four_digits_and_pass_no_end() -> None:
    found = space(parsed("c=interval(0.12344, 0.12345)"))
    assert found.overrides({"c": 0.1234449}) == ["c=0.12344"]


@pytest.mark.parametrize(
    ("typed", "reported"),
    [
        (["a=1"], "nothing is left to search"),
        (["a=tag(log, interval(0, 1))"], r"a: Optuna cannot search a=tag\(log, interval\(0, 1\)\)"),
    ],
)
def test_a_space_that_cannot_be_is_refused(typed: list[str], reported: str) -> None:
    with pytest.raises(RequestError, match=reported):
        space(parsed(*typed))


@pytest.mark.parametrize("more", [{"sampler": "magic"}, {"pruner": "axe"}, {"n_trials": 0}])
def test_settings_that_cannot_be_are_refused(more: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"hydra\.sweeper\.\w+: got .*; allowed: "):
        settings(**more)


@pytest.mark.parametrize("sampler", ["tpe", "gp", "random"])
def test_another_process_proposes_what_the_first_would_have(sampler: str, tmp_path: Path) -> None:
    """A parabola is searched by one process, and by one for each trial; the second forgets to report now and then."""
    wanted = space(parsed("x=interval(-4, 4)"))
    asked = settings(sampler=sampler, n_trials=14)

    def work(study: Study, most: int) -> None:
        while most and (found := study.next()):
            for number, (typed,) in found.items():
                study.tell(number, (float(typed.partition("=")[2]) - 1) ** 2)
            most -= 1

    whole = Study(tmp_path / "whole.log", wanted, asked)
    work(whole, 99)
    for attempt in range(20):
        study = Study(tmp_path / "parts.log", wanted, asked)
        if attempt % 4 == 3:
            study.next()  # and dies
        else:
            work(study, 1)
    assert study.proposed() == whole.proposed()
    assert len(study.proposed()) == 14


def test_a_trial_that_falls_behind_is_given_up(tmp_path: Path) -> None:
    from runner.record.events import Metrics, Progress
    from runner.record.journal import Record

    place, wanted = tmp_path / "study.log", space(parsed("x=interval(0, 1)"))
    study = Study(place, wanted, settings(pruner="median", n_trials=7))
    heard: list[Any] = []
    for trial in range(7):
        (number,) = study.next()
        pruner = Pruner(f"{place}#{number}", heard.append)
        pruner(Record(0.0, Progress("train", 0, 8, {})))
        for at in (0, 4, 8):
            loss = 0.7 - 0.01 * at if trial < 6 else 0.7
            pruner(Record(0.0, Metrics(at, {"eval/loss": loss})))
            assert (pruner.reason() is not None) == (trial == 6 and at >= 4)
        study.tell(number, loss if trial < 6 else None)
    assert str(pruner.reason()) == "given up after 4 steps: eval/loss 0.7 is behind the other trials'"
    assert len(heard) == 7 * 4, "every record was passed on"


def test_at_its_end_no_trial_is_given_up(tmp_path: Path) -> None:
    from runner.record.events import Metrics, Progress
    from runner.record.journal import Record

    place, wanted = tmp_path / "study.log", space(parsed("x=interval(0, 1)"))
    study = Study(place, wanted, settings(pruner="median", n_trials=7))
    for trial in range(7):
        (number,) = study.next()
        pruner = Pruner(f"{place}#{number}", lambda _: None)
        pruner(Record(0.0, Progress("train", 0, 8, {})))
        pruner(Record(0.0, Metrics(8, {"eval/loss": float(trial)})))
        study.tell(number, float(trial))
    assert pruner.reason() is None


@pytest.mark.slow
def test_a_trial_that_fails_is_reported_by_its_name_and_tried_again_by_the_same_command(here: Here) -> None:
    line = ("hydra/sweeper=optuna", "hydra.sweeper.n_trials=5", "dpo.learning_rate_multiplier=1,1e30",
            "hydra.sweeper.sampler=random", "tracking=none")  # fmt: skip
    for _ in range(2):
        failed = here.run(*line)
        assert failed.returncode == 1, failed.stdout + failed.stderr
        assert "dpo.learning_rate_multiplier=1e+30: failed: train: the loss is nan" in failed.stderr
        assert "trials failed; give the same command again" in failed.stderr
        assert "search=" not in failed.stdout, "a trial is called by what sets it apart"
    reported = here.summary()
    assert reported["trials"] == 2, "what is proposed twice is done once"
    assert [each["name"] for each in reported["failed"]] == ["dpo.learning_rate_multiplier=1e+30"]
    kept = json.loads(next(here.folder.glob("runs/sweeps/*/sweep.json")).read_bytes())
    assert {each["name"] for each in kept["trials"]} == {
        f"dpo.learning_rate_multiplier={rate}" for rate in ("1", "1e+30")
    }


@pytest.mark.slow
def test_a_search_that_is_killed_ends_as_if_it_had_not_been(here: Here, tmp_path: Path) -> None:
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    for folder in (whole, killed):
        folder.mkdir()
    warm.run(here.line(*SEARCH), cwd=whole, env=here.environment(), check=True)
    process = warm.Popen(
        here.line(*SEARCH), cwd=killed, env=here.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    waiting.until(lambda: len(list(killed.glob("runs/*/journal.jsonl"))) >= 3, "three trials to begin", process=process)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    warm.run(here.line(*SEARCH), cwd=killed, env=here.environment(), check=True)
    tables = [next(folder.glob("runs/sweeps/*/comparison.json")).read_bytes() for folder in (whole, killed)]
    assert tables[0] == tables[1]
    for journal in killed.glob("runs/*/journal.jsonl"):
        steps = [record.event.step for record in read(journal) if type(record.event).__name__ == "StepDone"]  # type: ignore[union-attr]
        assert len(steps) == len(set(steps)), "no step was done twice"


@pytest.mark.slow
def test_more_trials_of_the_same_are_the_same_search(here: Here) -> None:
    assert here.run(*SEARCH, "hydra.sweeper.n_trials=1").returncode == 0
    before = {path: path.read_bytes() for path in here.folder.glob("runs/*/journal.jsonl")}
    more = here.run(*SEARCH, "hydra.sweeper.n_trials=3")
    assert more.returncode == 0, more.stderr
    assert {path: path.read_bytes() for path in before} == before
    assert len(list(here.folder.glob("runs/*/journal.jsonl"))) == 3
    assert here.summary()["trials"] == 3


@pytest.mark.slow
def test_a_search_is_planned_and_refused_like_any_sweep(here: Here) -> None:
    planned = here.run(*SEARCH, "mode=plan")
    assert planned.returncode == 0, planned.stderr
    assert "a search of 5 trials for the greatest eval/reward_accuracy" in planned.stdout
    refused = here.run(*SEARCH, "dpo.beta=0.1,0")
    assert refused.returncode == 2
    assert "dpo.beta=0" in refused.stderr
    assert not (here.folder / "runs").exists()


@pytest.mark.slow
def test_pruned_trials_are_no_failures_and_cannot_win(here: Here) -> None:
    """Rates that hardly learn fall behind the first six."""
    line = ("hydra/sweeper=optuna", "hydra.sweeper.metric=eval/loss", "hydra.sweeper.pruner=median", "tracking=none",
            "hydra.sweeper.n_trials=12", "evaluation.every=1", RATE, "hydra.sweeper.sampler=random")  # fmt: skip
    done = here.run(*line)
    assert done.returncode == 0, done.stderr
    assert "pruned: " in done.stdout
    variants = here.summary()["comparison"]["variants"]
    statuses = [run["status"] for variant in variants for run in variant["runs"]]
    assert set(statuses) == {"finished", "pruned"}
    assert statuses == sorted(statuses), "pruned trials are listed after the finished ones"
    study = next(here.folder.glob("runs/sweeps/*/study.log")).read_bytes()
    again = here.run(*line)
    assert again.returncode == 0, again.stderr
    assert next(here.folder.glob("runs/sweeps/*/study.log")).read_bytes().startswith(study)
    assert json.loads(next(here.folder.glob("runs/sweeps/*/summary.json")).read_bytes())["trials"] == 12


def test_optuna_is_imported_by_a_search_only() -> None:
    script = "import sys, runner.sweeps.optuna_study; sys.exit('optuna' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], check=False, timeout=240).returncode == 0
