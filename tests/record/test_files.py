"""Files are written whole, and folders have names that any system takes."""

from pathlib import Path

import msgspec
import pytest

from runner.errors import DataError
from runner.record import graded, outcome
from runner.record.files import safe_name, write_json


def test_json_takes_the_place_of_what_was_there_and_leaves_no_draft(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, {"status": "running"})
    write_json(path, {"status": "finished"})
    assert msgspec.json.decode(path.read_bytes()) == {"status": "finished"}
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b'{"status":', b"\xff\xfe\x00[1"])
def test_damaged_files_of_a_run_are_named_in_a_sentence(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "report.json").write_bytes(content)
    with pytest.raises(DataError, match=r"report\.json: is damaged \(.*; restore it"):
        outcome.read(tmp_path)
    (tmp_path / "grades.jsonl").write_bytes(content + b"\n")
    with pytest.raises(DataError, match=r"grades\.jsonl: is damaged \(.*; restore it"):
        graded.read(tmp_path / "grades.jsonl", graded.AnswerGrade)


def test_a_value_that_cannot_be_encoded_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "report.json"
    write_json(path, [1])
    with pytest.raises(TypeError):
        write_json(path, object())
    assert msgspec.json.decode(path.read_bytes()) == [1]


@pytest.mark.parametrize(
    ("text", "name"),
    [("hf:Qwen/Qwen2.5-0.5B", "hf-Qwen-Qwen2.5-0.5B"), ("../data", "data"), ("問題 1", "問題-1"), ("…", "")],
)
def test_a_name_keeps_letters_and_digits_and_hides_or_opens_nothing(text: str, name: str) -> None:
    assert safe_name(text) == name
