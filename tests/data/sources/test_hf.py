"""A data set on the hub is read by its files, which are fetched once; its revision is a commit from the plan on."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from runner.data.sources import hf
from runner.errors import DataError
from tests.data.samples import simple_pair, trl, write_lines

COMMITS = {"main": "0123456789abcdef0123456789abcdef01234567", "v2": "f" * 40}


class Hub(BaseHTTPRequestHandler):
    """As much of the hub's API as data sets need, over a folder for each commit."""

    folder: Path
    asked: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        self.asked.append(self.path)
        parts = self.path.partition("?")[0].split("/")
        if parts[1:5] == ["api", "datasets", "org", "pairs"]:
            revision = parts[6] if len(parts) > 6 else "main"
            commit = COMMITS.get(revision, revision)
            files = [path for path in sorted((self.folder / commit).rglob("*")) if path.is_file()]
            names = [str(path.relative_to(self.folder / commit)) for path in files]
            if "tree" in parts:
                commit = COMMITS.get(parts[6], parts[6])
                body: bytes = json.dumps(
                    [{"type": "file", "path": name, "size": 1, "oid": "0" * 40} for name in names]
                ).encode()
            else:
                siblings = [{"rfilename": name} for name in names]
                body = json.dumps({"id": "org/pairs", "sha": commit, "siblings": siblings}).encode()
        else:
            # /datasets/org/pairs/resolve/COMMIT/PATH
            commit = parts[5] if len(parts) > 5 else ""
            file = self.folder / commit / "/".join(parts[6:])
            if not file.is_file():
                self.send_error(404)
                return
            body = file.read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{sha256(body).hexdigest()}"')
        self.send_header("X-Repo-Commit", commit)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    for commit, numbers in (("main", range(6)), ("v2", range(9))):
        folder = tmp_path / "hub" / COMMITS[commit] / "data"
        folder.mkdir(parents=True)
        rows = [trl(simple_pair(number)) for number in numbers]
        write_lines(folder / "train-00000-of-00001.jsonl", rows)
        write_lines(folder / "test-00000-of-00001.jsonl", rows[:2])
    handler = type("TinyHub", (Hub,), {"folder": tmp_path / "hub", "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


SCRIPT = """
import json, sys
from runner.data.reading.files import locate, pinned
from runner.errors import DataError
for name in sys.argv[1:]:
    try:
        name = pinned(name)
        print(name, sum(path.read_bytes().count(b"\\n") for path in (file.path for file in locate(name))))
    except DataError as error:
        print("DataError", error)
print("datasets" in sys.modules or "torch" in sys.modules)
"""


def ask(hub: str, home: Path, *names: str, offline: str = "0") -> list[str]:
    """Return what a fresh process says of names: each pinned, and how many rows it has."""
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(home), "HF_HUB_OFFLINE": offline, "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        env=os.environ | settings | {"RUNNER_CACHE": str(home / "runner")},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_a_split_comes_from_the_hub_once_and_is_pinned_to_its_commit(hub: str, tmp_path: Path) -> None:
    home, main = tmp_path / "home", COMMITS["main"]
    names = ["hf:org/pairs", "hf:org/pairs@v2:test", "hf:org/pairs:data/t*.jsonl", "hf:org/pairs:dev", "hf:org/gone"]
    *found, no_split, no_repository, heavy = ask(hub, home, *names)
    assert found == [
        f"hf:org/pairs@{main}:train 6",
        f"hf:org/pairs@{COMMITS['v2']}:test 2",
        f"hf:org/pairs@{main}:data/t*.jsonl 8",
    ]
    assert no_split.startswith(
        "DataError hf:org/pairs: has no file for 'dev' that is read here; its splits are test, train"
    )
    assert no_repository.startswith("DataError hf:org/gone@main: the hub did not give it (")
    assert heavy == "False"
    # The hub is gone: what was fetched is still there, by branch and by commit; what was not, is refused.
    lost = "http://127.0.0.1:9"
    assert ask(lost, home, "hf:org/pairs", f"hf:org/pairs@{main}")[:2] == [f"hf:org/pairs@{main}:train 6"] * 2
    # The library tries five times for half a minute, unless it is said that there is no network.
    known, refused, _ = ask(lost, home, "hf:org/pairs", "hf:org/pairs@v2:train", offline="1")
    assert known == f"hf:org/pairs@{main}:train 6"
    assert refused.startswith(f"DataError hf:org/pairs@{COMMITS['v2']}: the hub was not reached (")


@pytest.mark.parametrize("name", ["hf:pairs", "hf:a/b/c", "hf:org/pairs@", "hf:org/pairs:"])
def test_a_name_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(DataError, match="allowed: hf:ORG/NAME"):
        hf.SOURCE.files(name)


def test_splits_are_known_by_whole_words_of_paths() -> None:
    files = [
        "constraint.json",
        "data/train-0-of-2.parquet",
        "data/train-1-of-2.parquet",
        "dev.jsonl",
        "x/testing/a.csv",
    ]
    assert hf._named(files) == {"train": files[1:3], "validation": files[3:4], "test": files[4:]}
    assert hf._named(["rows.jsonl", "constraint.json"]) == {"train": ["rows.jsonl", "constraint.json"]}


def test_the_head_of_the_card_says_which_files_a_split_has() -> None:
    files = ["a.jsonl", "b/0.parquet", "b/1.parquet"]
    wanted = hf._Wanted("org/pairs", "main", "train")
    two = (
        "---\nconfigs:\n- config_name: small\n  data_files: a.jsonl\n"
        "- config_name: all\n  default: true\n  data_files:\n  - split: train\n    path: b/*.parquet\n"
        "  - split: test\n    path: [a.jsonl]\n---\n# Pairs\n"
    )
    assert hf._configured(wanted, two, files) == {"train": files[1:], "test": files[:1]}
    assert hf._configured(wanted, "# Pairs", files) == {}
    with pytest.raises(DataError, match=r"several configurations \(small, all\); .*hf:org/pairs:a.jsonl"):
        hf._configured(wanted, two.replace("  default: true\n", ""), files)
