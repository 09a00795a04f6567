"""What is remembered of a model holds as long as all that decided it does, and a broken cache costs nothing."""

from pathlib import Path

import pytest

from runner.backends.local import disk_cache
from runner.data.rows import Message


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path))
    return tmp_path


def test_a_value_is_known_by_all_that_decided_it() -> None:
    prompt = (Message(role="user", content="Hello"),)
    path = disk_cache.place("answers", ["digest", "float32"], [prompt], 16)
    assert disk_cache.read(path, list[tuple[str, bool]]) is None
    disk_cache.keep(path, [("Good day.", True)])
    assert disk_cache.read(path, list[tuple[str, bool]]) == [("Good day.", True)]
    others = [(["digest", "bfloat16"], [prompt], 16), (["digest", "float32"], [prompt, prompt], 16)]
    assert all(not disk_cache.place("answers", *each).exists() for each in others)


@pytest.mark.parametrize("content", [b"", b"[[", b'"yes"', b"\xff"])
def test_what_is_torn_is_not_known(content: bytes) -> None:
    path = disk_cache.place("layouts", "model")
    disk_cache.keep(path, True)
    path.write_bytes(content)
    assert disk_cache.read(path, bool) is None


def test_a_cache_that_cannot_be_written_is_no_error(cache: Path) -> None:
    (cache / "layouts").write_text("a file in the way")
    path = disk_cache.place("layouts", "model")
    disk_cache.keep(path, True)
    assert disk_cache.read(path, bool) is None
