"""What all commands share: `--help`, exit codes, and a sentence for what the user or the system got wrong."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from runner.errors import BusyError, RequestError, RunnerError
from runner.terminal import cli
from tests import warm

pytestmark = pytest.mark.slow

Command = Callable[..., subprocess.CompletedProcess[str]]
COMMANDS = [name for name in cli.COMMANDS if name != "runner"]


@pytest.fixture
def command_line(tmp_path: Path) -> Command:
    """Run `python -m …` in an empty folder, 80 columns wide; return the finished process."""

    def run(*arguments: str, module: str = "runner") -> subprocess.CompletedProcess[str]:
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "80"}
        line = [sys.executable, "-m", module, *arguments]
        return warm.run(line, cwd=tmp_path, env=environment, imports=warm.LIGHT)

    return run


def raising(error: BaseException) -> Callable[[], None]:
    def work() -> None:
        raise error

    return work


@pytest.mark.parametrize(
    ("work", "code"),
    [
        (lambda: None, 0),
        (lambda: 1, 1),
        (raising(RequestError("seed: wrong.")), 2),
        (raising(BusyError("runs/one: busy.")), 1),
        (raising(RunnerError("failed.")), 1),
        (raising(OSError(28, "No space left on device", "runs/one/journal.jsonl")), 1),
        (raising(KeyboardInterrupt()), 130),
        (raising(SystemExit(2)), 2),
        (raising(SystemExit()), 0),
    ],
    ids=["done", "its own", "request", "busy", "failed", "disk", "Ctrl-C", "argparse", "--help"],
)
def test_the_exit_code_says_how_a_command_ended(work: Callable[[], int | None], code: int) -> None:
    assert cli.guarded(work) == code


def test_what_the_system_refuses_is_a_sentence_with_the_file(capfd: pytest.CaptureFixture[str]) -> None:
    cli.guarded(raising(OSError(28, "No space left on device", "runs/one/journal.jsonl")))
    reported = capfd.readouterr().err
    assert reported == (
        "runs/one/journal.jsonl: No space left on device; fix that and give the same command again: it resumes.\n"
    )


def test_a_bug_keeps_its_traceback() -> None:
    with pytest.raises(ZeroDivisionError):
        cli.guarded(raising(ZeroDivisionError()))


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_help_of_each_command_explains_it_and_names_all_others(name: str, command_line: Command) -> None:
    process = command_line("--help", module=name)
    assert process.returncode == 0, process.stderr
    assert process.stderr == ""
    assert name != "runner" or "Fine-tune a model" in process.stdout
    for other, purpose in cli.COMMANDS.items():
        assert other == name or f"python -m {other}" in process.stdout
        assert other == name or purpose in process.stdout
    assert max(map(len, process.stdout.splitlines())) <= 80 or name == "runner"


def test_help_lists_only_groups_from_which_a_user_can_choose(command_line: Command) -> None:
    reported = command_line("--help").stdout.partition("Groups and their options")[2].partition("Other commands")[0]
    how, _, listed = reported.partition("\n\n")
    assert "graders are named in a list: evaluation.graders=[house_style]" in how
    groups = [line.partition(":")[0] for line in listed.strip().splitlines()]
    assert groups == ["backend", "dataset", "evaluation", "grader", "method", "mode", "model", "tracking"]


@pytest.mark.parametrize("name", COMMANDS)
def test_an_option_that_does_not_exist_is_refused_by_every_command(name: str, command_line: Command) -> None:
    process = command_line("--alll", module=name)
    assert process.returncode == 2
    assert process.stderr == (
        f"python -m {name}: unrecognized arguments: --alll; python -m {name} --help shows what is allowed.\n"
    )


def test_keys_may_follow_an_option(command_line: Command) -> None:
    done = command_line("one", "--runs-folder", "elsewhere", "format=gguf", module="runner.export")
    assert (done.returncode, done.stderr) == (2, "run one: not found; elsewhere/ is empty.\n")


@pytest.mark.parametrize(
    "line", [["runner", "--help"], ["runner", "mode=plan"], *([name, "--help"] for name in COMMANDS)]
)
def test_a_reader_that_has_enough_ends_a_command_quietly(line: list[str], tmp_path: Path) -> None:
    pipe, end = os.pipe()
    os.close(pipe)  # nobody will read, as after `| head -1`
    environment = os.environ | {"PYTHONWARNINGS": "ignore"}
    with os.fdopen(end, "wb") as output:
        process = warm.run(
            [sys.executable, "-m", *line], cwd=tmp_path, env=environment, stdout=output, imports=warm.LIGHT
        )
    assert process.stderr == ""
    assert process.returncode == 0


def test_output_that_cannot_be_written_is_reported_once(tmp_path: Path) -> None:
    with Path("/dev/full").open("wb") as full:
        process = subprocess.run(
            [sys.executable, "-m", "runner", "mode=plan"], cwd=tmp_path, stdout=full, stderr=subprocess.PIPE,
            text=True, timeout=warm.SECONDS,
        )  # fmt: skip
    assert process.returncode == 1
    assert "Traceback" not in process.stderr
    assert "No space left on device" in process.stderr
    assert len(process.stderr.splitlines()) == 1
