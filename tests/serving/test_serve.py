"""`python -m runner.serve`: the official client and curl's own request, unmodified, against each engine installed."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import openai
import pytest

from runner import serve
from runner.errors import RequestError, ServiceError
from runner.record import layout
from runner.serving import client, engines
from runner.serving.engines import Engine
from runner.serving.server import served
from runner.terminal import cli
from tests import warm
from tests.exporting.conftest import tuned as tuned

pytestmark = pytest.mark.slow

Tuned = Callable[[str], Path]
SECONDS = 240


@pytest.fixture
def serving() -> Iterator[Callable[..., "tuple[subprocess.Popen[str], str]"]]:
    started: list[subprocess.Popen[str]] = []

    def start(run: Path, *more: str) -> "tuple[subprocess.Popen[str], str]":
        line = [sys.executable, "-m", "runner.serve", str(run), "port=0", "rows=4", *more]
        process = warm.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=run.parent.parent,
            env=os.environ | {"COLUMNS": "300", "PYTHONUNBUFFERED": "1", "PYTHONWARNINGS": "ignore"},
        )  # fmt: skip
        started.append(process)
        said = ""
        assert process.stdout is not None
        while "curl" not in said:
            line_said = process.stdout.readline()
            assert line_said, f"it ended:\n{said}"
            said += line_said
        return process, said

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()  # type: ignore[union-attr]


@pytest.mark.parametrize("engine", ["llama_cpp", pytest.param("transformers", marks=pytest.mark.exhaustive)])
def test_the_official_client_and_curl_are_answered_and_ctrl_c_ends_it(engine: str, tuned: Tuned, serving) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("xllamacpp" if engine == "llama_cpp" else "uvicorn")
    run = tuned("qwen2")
    # What it learned depends on the processor's rounding: the run's own answer is the reference.
    sample = json.loads((run / layout.SAMPLES).read_text())[0]
    process, said = serving(run, f"engine={engine}", "max_new_tokens=24")
    assert "it answers 4 of 4 held-out prompts as the run's model does" in said
    url, model = re.search(r'base_url="(.*?)"', said)[1], re.search(r'model="(.*?)"', said)[1]  # type: ignore[index]

    with openai.OpenAI(base_url=url, api_key="none") as asked:
        assert [each.id for each in asked.models.list()] == [model], "what clients list is what answers"
        text = asked.responses.create(model=model, input=sample["prompt"], temperature=0).output_text
        reported = asked.chat.completions.create(
            model=model, temperature=0, messages=[{"role": "user", "content": sample["prompt"]}]
        )
    assert text.strip() == reported.choices[0].message.content.strip() == sample["after"]  # type: ignore[union-attr]

    line = next(line for line in said.splitlines() if line.strip().startswith("curl"))
    by_curl = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=SECONDS).stdout
    assert b'"choices"' in by_curl

    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    with pytest.raises(ServiceError):
        client.get(f"{url}/models")


class Broken(Engine):
    """An engine that cannot load what it is given."""

    name = "broken"
    form = "merged"

    def demand(self) -> None:
        """Nothing is missing."""

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return what ends at once."""
        return [sys.executable, "-c", "raise SystemExit('no such architecture')"]


class Deaf(Broken):
    """An engine that starts, and has a child of its own."""

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return what answers that it is well, by a process that it starts."""
        code = (
            "import subprocess, sys, time; from http.server import *\n"
            f"child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
            f"open({str(folder / 'child')!r}, 'w').write(str(child.pid))\n"
            "class H(BaseHTTPRequestHandler):\n"
            "    def do_GET(self): self.send_response(200); self.end_headers()\n"
            f"HTTPServer(('127.0.0.1', {port}), H).serve_forever()"
        )
        return [sys.executable, "-c", code]


def test_an_engine_that_does_not_start_is_a_sentence_with_its_last_words(tmp_path: Path) -> None:
    broken = served(Broken(), tmp_path, "m")
    with pytest.raises(ServiceError, match="broken: ended with 1 before it answered: no such architecture"):
        broken.__enter__()


def test_an_engine_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    with served(Deaf(), tmp_path, "m"):
        child = int((tmp_path / "child").read_text())
        os.kill(child, 0)
    end = time.monotonic() + 20
    while Path(f"/proc/{child}").exists() and "Z" not in Path(f"/proc/{child}/stat").read_text().split()[2]:
        assert time.monotonic() < end, "it still runs"
        time.sleep(0.05)


def test_a_port_that_is_taken_is_refused_with_what_helps(tmp_path: Path) -> None:
    with served(Deaf(), tmp_path, "m") as found:
        port = int(found.url.rpartition(":")[2].removesuffix("/v1"))
        second = served(Deaf(), tmp_path, "m", port)
        with pytest.raises(RequestError, match=f"port: {port} cannot be had .*; port=0 takes one that is free"):
            second.__enter__()


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(RequestError, match=f"^port: .*, got {port}"):
        cli.keys([f"port={port}"], serve.Asked)


def test_an_engine_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="engine: got ollama; allowed: llama_cpp, transformers, vllm"):
        engines.load("ollama")
