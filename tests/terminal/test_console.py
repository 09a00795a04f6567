"""What a person sees of a plan: only what applies, and commands that work where they are read."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from omegaconf import OmegaConf

from runner import methods, planning
from runner.plan import Proposal
from runner.request import check, hydra_config
from runner.terminal import console

Plan = Callable[..., Proposal]


@pytest.fixture
def proposed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Return what makes a plan of the embedded data in an empty folder."""
    monkeypatch.chdir(tmp_path)

    def make(*overrides: str) -> Proposal:
        GlobalHydra.instance().clear()
        hydra_config.register()
        with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
            composed = compose("config", ["mode=plan", *overrides])
        return planning.make(check.request(OmegaConf.to_container(composed, resolve=True)))

    return make


HOSTED = ("backend=foundry", "model.source=hosted:gpt-4.1-mini")


@pytest.mark.parametrize(
    ("loss", "unused"),
    [
        ("sigmoid", {"gamma"}),
        ("ipo", {"gamma", "label_smoothing", "length_normalised"}),
        ("simpo", {"length_normalised"}),
        ("hinge", {"gamma", "label_smoothing"}),
    ],
)
def test_a_plan_shows_no_key_that_its_loss_does_not_know(
    loss: str, unused: set[str], proposed: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    proposal = proposed(f"dpo.loss_type={loss}")
    console.show_plan(proposal, done=False, tokens=None)
    reported = capsys.readouterr().out
    optional = {"gamma", "label_smoothing", "length_normalised"}
    assert {key for key in optional if f"dpo.{key} " in reported} == optional - unused
    assert "dpo.beta " in reported
    assert "aims at no margin" not in reported
    assert set(proposal.run.plan.hyperparameters) >= optional, "the plan's identity is not touched"


@pytest.mark.parametrize(
    ("overrides", "is_said"), [((), False), (("dataset.validation=null",), True),
                               (("dataset.validation=null", "dataset.validation_fraction=0.2"), False)],
)  # fmt: skip
def test_a_plan_without_held_out_rows_says_what_is_not_evaluated_and_names_both_keys(
    overrides: tuple[str, ...], is_said: bool, proposed: Plan, capsys: pytest.CaptureFixture[str]
) -> None:
    console.show_plan(proposed(*overrides), done=False, tokens=None)
    note = (
        "note: no rows are held out, so nothing is evaluated during training; set dataset.validation or "
        "dataset.validation_fraction\n"
    )
    assert (note in capsys.readouterr().out) is is_said


def test_every_key_of_a_method_without_such_keys_is_shown() -> None:
    values = {"n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 1.0}
    assert methods.load("sft").shown(values) == {f"sft.{key}": value for key, value in values.items()}


def test_a_hosted_runs_name_differs_from_a_local_ones_at_its_beginning(proposed: Plan) -> None:
    local, hosted = proposed().run.folder.name, proposed(*HOSTED).run.folder.name
    assert local.startswith("dpo-house_style-")
    assert hosted.startswith("hosted-dpo-house_style-")
    assert proposed(*HOSTED, "name=mine").run.folder.name.startswith("mine-")


def test_commands_are_reported_with_their_place_where_the_environment_is_not_active(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "mlflow"):
        (folder / name).touch(mode=0o755)
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.chdir(tmp_path)
    assert console.in_this_shell("python -m runner.chat one") == ".venv/bin/python -m runner.chat one"
    assert console.in_this_shell("mlflow ui") == ".venv/bin/mlflow ui"
    assert console.in_this_shell("the same command") == "the same command"
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    assert console.in_this_shell("python -m runner.chat one") == "python -m runner.chat one"
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    monkeypatch.setenv("PATH", "/usr/bin")
    assert console.in_this_shell("mlflow ui") == f"{folder}/mlflow ui"


def test_commands_are_below_their_purpose_where_both_do_not_fit_a_line() -> None:
    lines = [("mlflow ui", "all runs"), ("python -m runner.chat first-1a2b3c4d", "talk to it")]
    assert console.commands(lines, 60) == [
        "  mlflow ui                               all runs",
        "  python -m runner.chat first-1a2b3c4d    talk to it",
    ]
    assert console.commands(lines, 40) == [
        "  all runs:",
        "    mlflow ui",
        "  talk to it:",
        "    python -m runner.chat first-1a2b3c4d",
    ]


def test_a_table_without_names_of_columns_has_no_empty_line_for_them(capsys: pytest.CaptureFixture[str]) -> None:
    console.table("first", ["", ""], [["status", "finished"]])
    assert [line.rstrip() for line in capsys.readouterr().out.splitlines()] == ["first", "status  finished", ""]


def test_output_whose_reader_has_gone_is_dropped_and_work_continues() -> None:
    pipe, end = os.pipe()
    os.close(pipe)
    with os.fdopen(end, "w") as file:
        output = console.Output(file=file)
        output.print("nobody reads this")
        output.print("nor this")
