"""What is remembered of a model holds as long as all that decided it does, and a broken cache costs nothing."""

from pathlib import Path

import pytest

from runner.backends.local import remembered
from runner.data.rows import Message


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path))
    return tmp_path


def test_a_value_is_known_by_all_that_decided_it() -> None:
    prompt = (Message(role="user", content="Hello"),)
    path = remembered.place("answers", ["digest", "float32"], [prompt], 16)
    assert remembered.read(path, list[tuple[str, bool]]) is None
    remembered.keep(path, [("Good day.", True)])
    assert remembered.read(path, list[tuple[str, bool]]) == [("Good day.", True)]
    others = [(["digest", "bfloat16"], [prompt], 16), (["digest", "float32"], [prompt, prompt], 16)]
    assert all(not remembered.place("answers", *each).exists() for each in others)


@pytest.mark.parametrize("content", [b"", b"[[", b'"yes"', b"\xff"])
def test_what_is_torn_is_not_known(content: bytes) -> None:
    path = remembered.place("layouts", "model")
    remembered.keep(path, True)
    path.write_bytes(content)
    assert remembered.read(path, bool) is None


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    (cache / "layouts").write_text("a file in the way")
    path = remembered.place("layouts", "model")
    remembered.keep(path, True)
    assert remembered.read(path, bool) is None
