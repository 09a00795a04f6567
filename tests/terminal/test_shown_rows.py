"""`show=N` prints rows as the model sees them, with the plan."""

import io
import json
import sys
from pathlib import Path

import pytest

from runner.models.chat.shown_row import Piece
from runner.terminal import console, shown_rows
from runner.terminal.console import Output
from tests import warm

PIECES = [Piece("Hi ", "read"), Piece("[yes]\x1b[2J", "learned"), Piece(" and", "cut")]


@pytest.mark.parametrize(
    ("colour", "shown"),
    [
        (None, "Hi ⟦[yes]\\x1b[2J⟧✂ and"),
        ("standard", "\x1b[2mHi \x1b[0m\x1b[1;32m[yes]\\x1b[2J\x1b[0m\x1b[9;31m and\x1b[0m"),
    ],
)
def test_what_is_learned_is_in_colour_or_in_brackets_and_no_escape_reaches_the_terminal(
    colour: str | None, shown: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = io.StringIO()
    terminal = Output(file=written, force_terminal=bool(colour), color_system=colour, width=80)
    monkeypatch.setattr(console, "terminal", terminal)
    terminal.print(shown_rows._body(PIECES), end="")
    assert written.getvalue() == shown


def row(number: int) -> dict[str, list[dict[str, str]]]:
    return {"messages": [{"role": "user", "content": f"{number}?"}, {"role": "assistant", "content": "Yes."}]}


def planned(folder: Path, *more: str) -> str:
    line = ["mode=plan", "show=2", "method=sft", "dataset.train=rows.jsonl", "dataset.validation=null"]
    line += ["dataset.style=null", "evaluation.graders=[]"]
    process = warm.run([sys.executable, "-m", "runner", *line, *more], cwd=folder)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.slow
def test_a_plan_shows_as_many_rows_as_it_is_asked_for(tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(4)), "utf-8")
    # With both keys given the machine is not measured, which would take longer than the rest.
    said = planned(tmp_path, f"model.source=path:{tiny_model}", "backend.dtype=float32", "backend.runtime.threads=1")
    assert said.count("⟦Yes.<|im_end|>\n⟧") == 2
    assert "train, row 2: " in said


@pytest.mark.slow
def test_a_plan_says_why_it_can_show_no_row_of_a_hosted_model(tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in range(12)), "utf-8")
    said = planned(tmp_path, "backend=foundry", "model=hosted", "model.source=hosted:gpt-4.1-mini")
    where = "rows are shown where the model's tokenizer is on this machine"
    assert f"note: show=2: {where}; that of hosted:gpt-4.1-mini is not" in said
