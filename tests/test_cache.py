"""Entries of the user's cache are written once, never seen half-written, and removed when nobody uses them."""

import multiprocessing
import os
import time
from pathlib import Path

import pytest

from runner import cache


def write(folder: Path) -> None:
    (folder / "content").write_text("whole")


def test_an_entry_is_written_once(tmp_path: Path) -> None:
    first = cache.entry(tmp_path / "rows", "abc", write)
    assert (first / "content").read_text() == "whole"

    def again(folder: Path) -> None:
        raise AssertionError("written twice")

    assert cache.entry(tmp_path / "rows", "abc", again) == first


def test_an_entry_that_could_not_be_written_is_not_there_and_is_written_by_the_next_call(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        write(folder)
        raise OSError("no space left")

    with pytest.raises(OSError, match="no space left"):
        cache.entry(tmp_path, "abc", fail)
    assert [path.name for path in tmp_path.iterdir()] == [".lock"]
    cache.entry(tmp_path, "abc", write)


def test_what_a_killed_process_left_is_replaced(tmp_path: Path) -> None:
    (tmp_path / ".abc.draft").mkdir()
    (tmp_path / ".abc.draft" / "half").write_text("…")
    assert [path.name for path in cache.entry(tmp_path, "abc", write).iterdir()] == ["content"]


def test_entries_unused_for_a_month_make_room_for_new_ones(tmp_path: Path) -> None:
    old, used = cache.entry(tmp_path, "old", write), cache.entry(tmp_path, "used", write)
    for path in (old, used):
        os.utime(path, (0, time.time() - 31 * 86_400))
    cache.entry(tmp_path, "used", write)
    cache.entry(tmp_path, "new", write)
    assert not old.exists()
    assert used.exists()


def slow(folder: Path) -> None:
    with (folder.parent / "writers").open("a") as file:
        file.write("one\n")
    time.sleep(0.3)
    write(folder)


def ask(folder: Path) -> None:
    assert (cache.entry(folder, "abc", slow) / "content").read_text() == "whole"


def test_processes_that_ask_at_once_write_it_once(tmp_path: Path) -> None:
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=ask, args=(tmp_path,)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
    assert [process.exitcode for process in processes] == [0, 0, 0]
    assert (tmp_path / "writers").read_text() == "one\n"
