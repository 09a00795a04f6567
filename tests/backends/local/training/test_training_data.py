"""What a run trains on is what was planned, read once, and the reference is the model as it was before training."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from runner import planning
from runner.backends.local.scoring.reference_cache import PHASE
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.steps import LocalSteps
from runner.backends.local.training.training_data import TrainingData
from runner.errors import DataError
from runner.models import tokenizer_folder
from runner.models.chat.tokenizer import ChatTokenizer
from runner.plan import Run
from runner.record.events import Event, Metrics, Progress
from runner.request import check, hydra_config
from tests.backends.local import plain
from tests.conftest import pair_row

pytestmark = pytest.mark.slow

Make = Callable[..., Run]


@pytest.fixture
def make(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Plan a run over `pairs.jsonl` in a folder and with a cache of its own."""
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    write(tmp_path / "pairs.jsonl", range(12))

    def planned(*keys: str) -> Run:
        line = [f"model.source=path:{tiny_model}", "dataset=files", "dataset.train=pairs.jsonl", "tracking=none",
                "dpo.batch_size=2", "backend.runtime.threads=1", "dpo.rpo_alpha=0", *keys]  # fmt: skip
        hydra_config.register()
        with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
            composed = OmegaConf.to_container(compose("config", line), resolve=True)
        return planning.make(check.request(composed)).run  # type: ignore[arg-type]

    return planned


def write(path: Path, numbers: range) -> None:
    path.write_text("".join(json.dumps(pair_row(number)) + "\n" for number in numbers), "utf-8")


def data(run: Run) -> TrainingData:
    folder = Path(run.plan.model.source.removeprefix("path:"))
    return TrainingData(run, "preference", ChatTokenizer(tokenizer_folder(folder)), 1024)


CHANGES = {
    "fewer rows": (range(5), "12 rows were planned, now there are 5"),
    "other rows": (range(20, 32), "it still has 12 rows, but with other content"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_file_replaced_after_planning_is_refused_and_nothing_is_kept(change: str, make: Make, tmp_path: Path) -> None:
    run = make()
    numbers, sentence = CHANGES[change]
    write(tmp_path / "pairs.jsonl", numbers)
    with pytest.raises(DataError, match=rf"^dataset\.train: pairs\.jsonl has changed .*: {sentence}; restore it, or"):
        data(run).rows["train"]
    assert list((tmp_path / "cache" / "rows").glob("[!.]*")) == []


def test_rows_that_an_earlier_run_stored_are_those_of_the_plan_whatever_the_file_holds_now(
    make: Make, tmp_path: Path
) -> None:
    run = make("dataset.validation_fraction=0.3")
    before = {split: list(rows) for split, rows in data(run).rows.items()}
    assert len(before["train"]) + len(before["validation"]) == 12
    write(tmp_path / "pairs.jsonl", range(20, 32))
    assert {split: list(rows) for split, rows in data(run).rows.items()} == before


def test_without_a_cache_that_can_be_written_to_rows_lie_in_the_runs_folder(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make()
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "file" / "cache"))
    assert len(data(run).rows["train"]) == 12
    assert len(list((run.folder / "cache" / "rows").glob("[!.]*"))) == 1


def carried_out(work: LocalSteps) -> list[Event]:
    """Prepare and train; return all events."""
    events = list(work.prepare())
    work.results = {"prepare": dict(work.loaded.how)}
    return events + list(work.train())


@pytest.mark.parametrize("tuning", ["lora", "full"])
def test_reference_values_computed_in_the_course_of_training_are_those_of_the_untrained_model(
    tuning: str, make: Make, tiny_model: Path
) -> None:
    run = make(f"backend.tuning={tuning}", "backend.learning_rate=0.05", "backend.runtime.tokens_at_once=1")
    work = LocalSteps(run, {})
    carried_out(work)
    rows = work.rows.of("train")
    tokens = [rows[number].tokens for number in range(len(rows))]
    untrained = Scorer(plain.load(tiny_model))
    with torch.no_grad():
        expected = torch.cat([untrained([row]).logps for row in tokens])
        trained = torch.cat([work.loaded.scorer([row]).logps for row in tokens])
    found = torch.tensor([rows[number].reference_logps for number in range(len(rows))])
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (trained - expected).abs().max() > 0.1, "training changed nothing, so the test shows nothing"


def test_the_copy_of_the_untrained_model_is_given_up_when_all_values_are_known(make: Make) -> None:
    work = LocalSteps(make("backend.tuning=full", "dpo.n_epochs=2"), {})
    carried_out(work)
    assert "_first_copy" not in vars(work.rows)


def test_the_first_step_waits_for_the_reference_values_of_its_own_rows_only(make: Make, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", range(60))
    keys = ("dataset.validation_fraction=0.4", "backend.max_steps=2", "backend.runtime.tokens_at_once=1")
    events = carried_out(LocalSteps(make(*keys), {}))
    first_step = next(place for place, event in enumerate(events) if "train/loss" in getattr(event, "values", {}))
    reference = [event for event in events[:first_step] if isinstance(event, Progress) and event.what == PHASE]
    assert 2 <= max(event.done for event in reference) <= 4  # rows of two batches of two, each a pack of its own
    evaluated = [event.step for event in events if isinstance(event, Metrics) and "eval/loss" in event.values]
    assert evaluated == [0, 1]
