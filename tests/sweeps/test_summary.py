"""What is reported of a sweep before it starts: what its trials share, in words that fit where they run."""

from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra

from runner import sweeps
from runner.request import hydra_config
from runner.sweeps import Trial, summary

Make = Callable[..., tuple[Trial, ...]]


@pytest.fixture
def trials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Return what plans two trials of the embedded data, in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> tuple[Trial, ...]:
        GlobalHydra.instance().clear()
        hydra_config.register()
        with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
            each = [["mode=plan", *overrides, f"seed={seed}"] for seed in (1, 2)]
            return sweeps.make(each, lambda overrides: compose("config", overrides))

    return make


HOSTED = ("backend=foundry", "model.source=hosted:gpt-4.1-mini")


def test_a_local_sweep_sends_nothing(trials: Make, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_forecast(trials())
    reported = capsys.readouterr().out
    assert "128 rows and 32 held out: read and tokenised once, not once per trial" in reported
    assert "sent" not in reported
    assert "upload" not in reported


def test_a_hosted_sweep_uploads_its_rows_once(trials: Make, capsys: pytest.CaptureFixture[str]) -> None:
    summary.show_forecast(trials(*HOSTED))
    assert "read, counted and uploaded once, not once per trial" in capsys.readouterr().out


def test_a_sweep_is_called_by_where_it_runs(trials: Make) -> None:
    local, hosted = (sweeps.Sweep(trials=trials(*more), id="0" * 64).folder.name for more in ((), HOSTED))
    assert (local, hosted) == ("dpo-sweep-00000000", "hosted-dpo-sweep-00000000")
