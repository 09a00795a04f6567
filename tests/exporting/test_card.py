"""The model card, and where an export is sent: to a hub over HTTP on this machine, and to a store."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner import planning
from runner.errors import RequestError
from runner.exporting import card, destinations
from runner.exporting.carry_out import Export
from runner.exporting.proof import Check, Proof
from runner.record import layout

Tuned = Callable[[str], Path]


def exported(proven: bool = True) -> Export:
    checks = [Check("greedy answers", proven, "8 of 8 are the same", "7 or more")]
    return Export(
        plan_id="p", digest="d", format="gguf", quantization="q8_0", runner="0", program="xllamacpp 1",
        proven=proven, split="validation", proof=Proof(checks, 8, 80, 0.001, 0.01, 8), cost=["q8 is 1 point worse"],
    )  # fmt: skip


def test_a_card_says_what_the_model_is_made_of_how_good_it_is_and_how_it_is_loaded(
    tuned: Tuned, tmp_path: Path
) -> None:
    from huggingface_hub import ModelCard

    run = planning.load(tuned("llama"))
    card.write(run, exported(), tmp_path, "apache-2.0")
    found = ModelCard.load(tmp_path / layout.CARD)
    assert found.data.license == "apache-2.0"
    assert found.data.tags == ["runner", "sft"]
    for part in (
        run.plan.id, run.plan.train.fingerprint[:12], "graders: in_style", "- of this form: q8 is 1 point worse.",
        "| eval/loss |", "| greedy answers | yes | 8 of 8 are the same | 7 or more |", "llama-server -m model.gguf",
    ):  # fmt: skip
        assert part in found.text


def test_a_card_of_an_export_that_is_not_proven_says_so_first(tuned: Tuned) -> None:
    lines = card.text(planning.load(tuned("llama")), exported(proven=False), None).splitlines()
    assert lines[2].startswith("**Not proven to be the run's model")


@pytest.mark.parametrize(
    ("card_says", "config", "licence"),
    [
        ("---\nlicense: apache-2.0\n---\ntext", {}, "apache-2.0"),
        ("---\nlicense: other\nlicense_name: llama3.2\n---\n", {"license": "mit"}, "other, llama3.2"),
        ("no head", {"license": "mit"}, "mit"),
        ("---\nlicense: [\n---\n", {}, None),
        (None, {}, None),
    ],
)
def test_the_licence_of_the_base_model_is_what_its_own_card_or_configuration_says(
    card_says: str | None, config: dict[str, str], licence: str | None, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    if card_says is not None:
        (tmp_path / layout.CARD).write_text(card_says)
    assert card.licence_of(tmp_path) == licence


def test_a_store_has_all_files_and_the_proof_came_last(tmp_path: Path) -> None:
    folder = tmp_path / "export"
    (folder / "more").mkdir(parents=True)
    for name in (layout.EXPORT, "a.txt", "more/z.txt"):
        (folder / name).write_text(name)
    address = f"file://{tmp_path}/store/model"
    assert destinations.find(address).push(folder, address) == address
    sent = {path.relative_to(tmp_path / "store/model").as_posix(): path for path in (tmp_path / "store").rglob("*.*")}
    assert {name: path.read_text() for name, path in sent.items()} == {name: name for name in sent}
    assert max(sent, key=lambda name: sent[name].stat().st_mtime_ns) == layout.EXPORT


@pytest.mark.parametrize("address", ["hub:alone", "ftp://x/y", "s3://bucket", "nothing"])
def test_an_address_that_cannot_be_one_is_refused_with_what_is_allowed(address: str) -> None:
    with pytest.raises(RequestError, match="allowed: "):
        destinations.find(address)


class _Hub(BaseHTTPRequestHandler):
    """The calls by which the hub's client makes a repository and commits small files.

    Source: https://huggingface.co/docs/hub/api, and huggingface_hub/_commit_api.py.
    """

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"] or 0))
        self.server.heard.append((self.path, body))  # type: ignore[attr-defined]
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self._answer(401, {"error": "Invalid username or password."})
        here = f"http://127.0.0.1:{self.server.server_address[1]}/o/n"
        if self.path.endswith("/repos/create"):
            return self._answer(200, {"url": here, "name": "o/n"})
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in json.loads(body)["files"]
            ]
            return self._answer(200, {"files": files})
        if "/commit/" in self.path:
            return self._answer(200, {"commitUrl": f"{here}/commit/1", "commitOid": "1"})
        return self._answer(200, {})

    def do_GET(self) -> None:
        self._answer(200, {"sha": "0", "id": "o/n", "siblings": []})

    def _answer(self, status: int, content: dict[str, object]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub() -> Iterator[ThreadingHTTPServer]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Hub)
    server.heard = []  # type: ignore[attr-defined]
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


PUSH = """
import sys
from pathlib import Path
from runner.exporting.destinations import find
from runner.terminal import cli
cli.main(lambda line: print(find(line[1]).push(Path(line[0]), line[1])))
"""


def pushed(hub: ThreadingHTTPServer, folder: Path, token: str) -> "subprocess.CompletedProcess[str]":
    # A process of its own: the client reads its address and whether it is offline while it is imported.
    address = f"http://127.0.0.1:{hub.server_address[1]}"
    environment = os.environ | {"HF_HUB_OFFLINE": "0", "HF_ENDPOINT": address, "HF_TOKEN": token}
    environment |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}
    line = [sys.executable, "-W", "ignore", "-c", PUSH, str(folder), "hub:o/n"]
    return subprocess.run(line, env=environment, cwd=folder, capture_output=True, text=True, timeout=240, check=False)


@pytest.mark.slow
def test_the_hub_gets_a_private_repository_and_one_commit_with_all_files(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("a card")
    (tmp_path / layout.EXPORT).write_text("{}")
    done = pushed(hub, tmp_path, "hf_right")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("/o/n/commit/1")
    heard = hub.heard  # type: ignore[attr-defined]
    made = next(json.loads(body) for path, body in heard if path.endswith("/repos/create"))
    assert made["visibility"] == "private"
    (commit,) = [body for path, body in heard if "/commit/" in path]
    files = [json.loads(line)["value"] for line in commit.splitlines() if json.loads(line)["key"] == "file"]
    assert {each["path"]: base64.b64decode(each["content"]) for each in files} == {
        "README.md": b"a card",
        layout.EXPORT: b"{}",
    }


@pytest.mark.slow
def test_a_hub_that_does_not_let_us_in_is_a_sentence_without_the_token(
    hub: ThreadingHTTPServer, tmp_path: Path
) -> None:
    (tmp_path / "README.md").write_text("a card")
    done = pushed(hub, tmp_path, "hf_wrong_secret")
    assert done.returncode == 2
    assert done.stderr.startswith("push: hub:o/n: the hub does not let us in")
    assert "Traceback" not in done.stderr
    assert "hf_wrong_secret" not in done.stderr + done.stdout
