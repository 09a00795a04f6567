"""What is known to be in the real files of the folder RUNNER_TEST_DATA is found there, and nothing is missed."""

import os
import re
from functools import cache
from pathlib import Path

import pytest

from runner.data.containers import container_of, head, read_blocks
from runner.data.findings import Group
from runner.data.reading.detect import detect
from runner.data.reading.files import DataFile
from runner.data.splits import Selection
from runner.data.survey import Survey, survey

FILES = [
    ("gsm8k_test.sft.jsonl", "lines", "chat", 1319),
    ("hh_harmless_test.dpo.jsonl", "lines", "foundry", 2299),
    ("llamafactory_en.dpo.jsonl", "lines", "foundry", 300),
    ("llamafactory_identity.sft.jsonl", "lines", "chat", 91),
    ("shape_alpaca.sft.json", "array", "alpaca", 200),
    ("shape_hh_rlhf.dpo.jsonl", "lines", "hh_rlhf", 100),
    ("shape_sharegpt.dpo.json", "array", "sharegpt_preference", 100),
    ("shape_trl.dpo.jsonl", "lines", "trl", 200),
]


@pytest.fixture(scope="session")
def folder() -> Path:
    given = os.environ.get("RUNNER_TEST_DATA")
    if not given:
        pytest.skip("RUNNER_TEST_DATA is not set; it names the folder with the real data")
    return Path(given)


@cache
def look(path: Path, max_rows: int | None = None) -> Survey:
    kind: str = "preference" if ".dpo." in path.name else "conversation"
    return survey(Selection(train=str(path), kind=kind, max_rows=max_rows))


def found(path: Path, rule: str) -> Group:
    [group] = [group for group in look(path).findings if group.rule == rule]
    return group


def lines(group: Group) -> list[int | None]:
    return [each.line for each in group.examples]


@pytest.mark.parametrize(("name", "container", "shape", "rows"), FILES)
def test_shape_and_number_of_rows_are_seen(folder: Path, name: str, container: str, shape: str, rows: int) -> None:
    file = DataFile(name, folder / name)
    assert container_of(file, head(file)) == container
    assert detect(file, next(read_blocks(file))).name == shape
    seen = look(folder / name)
    assert seen.splits["train"].rows + seen.refused == rows


@pytest.mark.parametrize("name", [name for name, *_ in FILES if name != "shape_hh_rlhf.dpo.jsonl"])
def test_no_row_is_refused(folder: Path, name: str) -> None:
    assert look(folder / name).refused == 0


def test_the_transcript_without_an_answer_is_refused(folder: Path) -> None:
    path = folder / "shape_hh_rlhf.dpo.jsonl"
    assert lines(found(path, "empty-answer")) == [87]
    assert look(path).refused == 1


def test_the_same_rows_in_two_shapes_have_one_fingerprint(folder: Path) -> None:
    foundry = look(folder / "hh_harmless_test.dpo.jsonl", max_rows=200).splits["train"]
    assert foundry == look(folder / "shape_trl.dpo.jsonl").splits["train"]


def test_llamafactory_has_repeated_rows(folder: Path) -> None:
    assert found(folder / "llamafactory_en.dpo.jsonl", "duplicate-row").count == 5


def test_llamafactory_has_two_characters_that_nobody_sees(folder: Path) -> None:
    path = folder / "llamafactory_en.dpo.jsonl"
    assert set(lines(found(path, "byte-order-mark"))) == {68}
    feeds = [each.line for each in found(path, "control-character").examples if "U+000C" in each.message]
    assert feeds == [287]


def test_hh_harmless_has_transcripts_in_answers_and_repeated_prompts(folder: Path) -> None:
    path = folder / "hh_harmless_test.dpo.jsonl"
    assert found(path, "transcript-marker").count == 37
    assert found(path, "repeated-prompt").count == 2


def test_identity_has_placeholders(folder: Path) -> None:
    group = found(folder / "llamafactory_identity.sft.jsonl", "placeholder")
    assert group.count == 85
    assert group.examples[0].message.startswith("`{{name}}` (2 times) is in turn 2; ")


def test_gsm8k_has_calculator_marks_and_odd_spaces(folder: Path) -> None:
    path = folder / "gsm8k_test.sft.jsonl"
    assert found(path, "calculator-mark").examples[0].message.startswith("`<<16-3-4=9>>` (2 times) is in turn 2;")
    assert found(path, "no-break-space").count == len(found(path, "no-break-space").examples)
    times = [re.search(r"\((\d+) times\)", each.message) for each in found(path, "no-break-space").examples]
    assert sum(int(each[1]) if each else 1 for each in times) == 10
    assert lines(found(path, "zero-width-space")) == [394]
