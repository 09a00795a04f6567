"""Data in object stores, over HTTP by their own clients: fetched once, again when it has changed, read offline."""

import gzip
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from runner.data.reading.files import locate, pinned
from runner.data.splits import Selection
from runner.data.survey import SplitSurvey, survey
from runner.errors import DataError
from tests import warm
from tests.conftest import pair_row
from tests.object_stores import GONE, ObjectStore


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))


def lines(*numbers: int) -> bytes:
    return b"".join(json.dumps(pair_row(number)).encode() + b"\n" for number in numbers)


def train(name: str) -> SplitSurvey:
    return survey(Selection(train=name, kind="preference")).splits["train"]


def copies(folder: Path) -> set[Path]:
    return {path for path in (folder / "cache/data").rglob("*") if path.is_file() and path.suffix in (".jsonl", ".gz")}


def test_a_file_in_an_object_store_has_the_rows_that_it_has_here_packed_or_not(
    open_store: ObjectStore, tmp_path: Path
) -> None:
    (tmp_path / "here.jsonl").write_bytes(lines(*range(20)))
    open_store.put("same/rows.jsonl", lines(*range(20)))
    open_store.put("same/rows.jsonl.gz", gzip.compress(lines(*range(20))))
    prints = {
        train(name).fingerprint
        for name in (
            str(tmp_path / "here.jsonl"),
            open_store.at("same/rows.jsonl"),
            open_store.at("same/rows.jsonl.gz"),
        )
    }
    assert len(prints) == 1


def test_a_file_in_an_object_store_is_fetched_again_only_when_it_has_changed_by_its_etag(
    open_store: ObjectStore, tmp_path: Path
) -> None:
    name = open_store.at("changed/rows.jsonl")
    open_store.put("changed/rows.jsonl", lines(10, 11))
    assert pinned(name) == name
    first = train(name).fingerprint
    (copy,) = copies(tmp_path)
    pinned(name)
    assert copies(tmp_path) == {copy}

    assert len(lines(10, 12)) == len(lines(10, 11)), "so that its size says nothing"
    open_store.put("changed/rows.jsonl", lines(10, 12))
    assert train(name).fingerprint == first, "as the plan that was made has it"
    pinned(name)
    assert train(name).fingerprint != first
    assert copies(tmp_path) > {copy}, "a run under way has mapped it"


def test_a_pattern_in_an_object_store_is_its_files_sorted_and_new_ones_are_seen_by_the_same_process(
    open_store: ObjectStore,
) -> None:
    name = open_store.at("glob/*.jsonl")
    for each in ("glob/b.jsonl", "glob/a.jsonl", "glob/a.txt"):
        open_store.put(each, lines(1))
    pinned(name)
    assert [file.name for file in locate(name)] == [open_store.at("glob/a.jsonl"), open_store.at("glob/b.jsonl")]
    open_store.put("glob/b.jsonl", lines(1, 2))
    open_store.put("glob/c.jsonl", lines(3))
    pinned(name)
    assert len(locate(name)) == 3
    assert train(name).rows == 4


@GONE
def test_what_was_fetched_of_an_object_store_is_read_while_it_does_not_answer(
    open_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store.put("offline/rows.jsonl", lines(1, 2))
    name = open_store.at("offline/*.jsonl")
    pinned(name)
    open_store.enter("gone", monkeypatch)
    assert pinned(name) == name
    assert train(name).rows == 2
    with pytest.raises(DataError, match=r"never.jsonl: cannot be fetched \(.*onnect") as caught:
        pinned(open_store.at("offline/never.jsonl"))
    assert open_store.shows_no_key(str(caught.value))


@pytest.mark.parametrize("name", ["refused/rows.jsonl", "refused/*.jsonl"])
def test_an_object_store_that_does_not_let_us_in_is_refused_although_a_copy_is_here(
    name: str, open_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_store.put("refused/rows.jsonl", lines(1))
    pinned(open_store.at(name))
    open_store.enter("wrong", monkeypatch)
    with pytest.raises(DataError, match=r"cannot be fetched .*check the address, and the credential") as caught:
        pinned(open_store.at(name))
    assert open_store.shows_no_key(str(caught.value))


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("models/none.jsonl", r"cannot be fetched \(.*[nN]o such file"),
        ("models/none*.jsonl", "no file there matches"),
        ("mistyped/none.jsonl", r"cannot be fetched \(.*([nN]o such file|bucket does not exist)"),
        ("mistyped/none*.jsonl", "no file there matches|bucket does not exist"),
        ("models/folder", r"cannot be fetched \(.*does not exist"),
    ],
)
def test_what_is_not_in_an_object_store_is_a_sentence(name: str, sentence: str, open_store: ObjectStore) -> None:
    open_store.put("folder/rows.jsonl", lines(1))
    with pytest.raises(DataError, match=sentence):
        pinned(f"{open_store.scheme}://{name}")


@pytest.mark.parametrize("object_store", ["azure"], indirect=True)
def test_a_container_with_its_account_is_read_unless_the_connection_is_of_another_account(
    open_store: ObjectStore,
) -> None:
    open_store.put("forms/rows.jsonl", lines(1, 2))
    form = "abfs://models@{}.dfs.core.windows.net/forms/*.jsonl"
    assert train(form.format("runnertests")).rows == 2
    with pytest.raises(DataError, match=r"CONNECTION_STRING is preferred to the address.* account another; unset it"):
        pinned(form.format("another"))


def plan(folder: Path, variables: Mapping[str, str], *keys: str) -> "subprocess.CompletedProcess[str]":
    """Plan in a folder, as a user does whose variables are in its `.env`."""
    (folder / ".env").write_text("".join(f"{name}='{value}'\n" for name, value in variables.items()))
    environment = {name: value for name, value in os.environ.items() if name not in variables}
    line = [sys.executable, "-m", "runner", "mode=plan", "tracking=none", "dataset=files", *keys]
    done = warm.run(line, cwd=folder, env=environment | {"COLUMNS": "400"}, imports=warm.LIGHT)
    (folder / ".env").unlink()
    return done


def written(folder: Path, *done: "subprocess.CompletedProcess[str]") -> str:
    """Return all that commands printed, and what is in the files that they wrote."""
    files = [path.read_bytes().decode("utf-8", "replace") for path in folder.rglob("*") if path.is_file()]
    return "".join([*files, *(each.stdout + each.stderr for each in done)])


@GONE
def test_a_plan_of_rows_in_an_object_store_is_the_same_without_it_and_another_when_they_change(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    object_store.put("plan/rows.jsonl.gz", gzip.compress(lines(*range(8)), mtime=0))
    (tmp_path / "more.jsonl").write_bytes(lines(*range(20, 28)))
    there = object_store.at("plan/rows.jsonl.gz")
    keys = (f"dataset.mix={{there: {{source: '{there}', weight: 1}}, here: {{source: more.jsonl, weight: 1}}}}",)
    first, second = (plan(tmp_path, variables, *keys) for variables in (object_store.right, object_store.gone))
    assert first.returncode == second.returncode == 0, first.stderr + second.stderr
    assert "16" in first.stdout
    assert first.stdout == second.stdout
    object_store.put("plan/rows.jsonl.gz", gzip.compress(lines(*range(2, 10)), mtime=0))
    third = plan(tmp_path, object_store.right, *keys)
    assert third.returncode == 0
    assert third.stdout.splitlines()[0] != first.stdout.splitlines()[0], "its name and plan id"
    assert object_store.shows_no_key(written(tmp_path, first, second, third))


def test_a_plan_of_rows_that_an_object_store_does_not_give_is_one_sentence_and_exit_code_2(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    object_store.put("plan/rows.jsonl", lines(1))
    for variables, name in ((object_store.right, "plan/none.jsonl"), (object_store.wrong, "plan/rows.jsonl")):
        done = plan(tmp_path, variables, f"dataset.train={object_store.at(name)}")
        assert done.returncode == 2
        (sentence,) = done.stderr.strip().splitlines()
        assert sentence.startswith(f"{object_store.at(name)}: cannot be fetched (")
        assert object_store.shows_no_key(written(tmp_path, done))
