"""`python -m runner.serve`: the official client and curl's own request, unmodified, against each engine installed."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from runner import serve
from runner.errors import RequestError, ServiceError
from runner.record import layout
from runner.serving import client, engines
from runner.serving.engines import Engine
from runner.serving.server import free, served
from runner.terminal import cli
from tests import waiting, warm
from tests.exporting.conftest import tuned as tuned

pytestmark = pytest.mark.slow

Tuned = Callable[[str], Path]
Started = tuple["subprocess.Popen[str]", str]
Serving = Callable[..., Started]
SECONDS = 240


@pytest.fixture
def serving() -> Iterator[Serving]:
    started: list[subprocess.Popen[str]] = []

    def start(run: Path, *more: str) -> Started:
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


@pytest.fixture
def started(serving: Serving, tuned: Tuned, any_vllm: Path) -> Callable[[str], Started]:
    """Return what serves a run's model by an engine, with what it has printed."""

    def start(engine: str) -> Started:
        more = [f"program={any_vllm}"] if engine == "vllm" else []
        return serving(tuned(MODELS[engine]), f"engine={engine}", "max_new_tokens=24", *more)

    return start


MODELS = {"llama_cpp": "qwen2", "transformers": "qwen2", "vllm": "wide_heads"}
ENGINES = ["llama_cpp", "vllm", pytest.param("transformers", marks=pytest.mark.exhaustive)]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_official_client_and_curl_are_answered_and_ctrl_c_ends_it(
    engine: str, tuned: Tuned, started: Callable[[str], Started]
) -> None:
    pytest.importorskip("xllamacpp" if engine == "llama_cpp" else "uvicorn")
    # What it learned depends on the processor's rounding: the run's own answer is the reference.
    sample = json.loads((tuned(MODELS[engine]) / layout.SAMPLES).read_text())[0]
    process, said = started(engine)
    if engine == "vllm":
        assert re.search("asking it 4 validation prompts by vllm [0-9]", said), "its own proof, in full"
    assert "it answers 4 of 4 held-out prompts as the run's model does" in said
    url, model = re.search(r'base_url="(.*?)"', said)[1], re.search(r'model="(.*?)"', said)[1]  # type: ignore[index]

    with openai.OpenAI(base_url=url, api_key="none") as asked:
        assert [each.id for each in asked.models.list()] == [model], "what clients list is what answers"
        question, limit = sample["prompt"], 24  # tokens of the sample
        text = asked.responses.create(model=model, input=question, temperature=0, max_output_tokens=limit).output_text
        reported = asked.chat.completions.create(
            model=model, temperature=0, max_tokens=limit, messages=[{"role": "user", "content": question}]
        )
    after = sample["after"].removesuffix(" […]")  # as one that is cut is shown
    assert text.strip() == reported.choices[0].message.content.strip() == after  # type: ignore[union-attr]

    line = next(line for line in said.splitlines() if line.strip().startswith("curl"))
    by_curl = subprocess.run(["bash", "-c", line], capture_output=True, check=True, timeout=SECONDS).stdout
    assert b'"choices"' in by_curl

    processes = session(url)
    assert processes
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 130
    with pytest.raises(ServiceError):
        client.get(f"{url}/models")
    waiting.until(lambda: not [each for each in processes if alive(each)], "the end of all of its processes")


def test_vllm_and_what_it_has_started_end_with_a_command_that_is_killed(started: Callable[[str], Started]) -> None:
    process, said = started("vllm")
    processes = session(re.search(r'base_url="(.*?)"', said)[1])  # type: ignore[index]
    assert processes
    process.kill()
    waiting.until(lambda: not [each for each in processes if alive(each)], "the end of all of its processes")


def session(url: str) -> list[int]:
    """Return all processes of the session of the engine that answers at an address."""
    port = f"{url.rpartition(':')[2].removesuffix('/v1')}"
    lines = {int(path.name): (path / "cmdline").read_bytes() for path in Path("/proc").glob("[0-9]*") if alive_at(path)}
    (leader,) = {os.getsid(pid) for pid, line in lines.items() if b"bound.py" in line and port.encode() in line}
    return [pid for pid in lines if alive(pid) and os.getsid(pid) == leader]


def alive(pid: int) -> bool:
    """Say whether a process runs: one that has ended and was not waited for does not."""
    return alive_at(Path(f"/proc/{pid}"))


def alive_at(path: Path) -> bool:
    try:
        return (path / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Broken(Engine):
    """An engine that cannot load what it is given."""

    name = "broken"
    form = "merged"

    def demand(self) -> str:
        """Return Python; nothing is missing."""
        return sys.executable

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


class Beaten(Deaf):
    """An engine whose port another process takes before it does, the first time or always, and that does not say so."""

    def __init__(self, times: int, closing: ExitStack) -> None:
        self.times, self.ports = times, list[int]()
        self.closing = closing

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return what ends, as the port is taken, and later what answers."""
        self.ports.append(port)
        if len(self.ports) > self.times:
            return super().command(folder, model, port)
        other = self.closing.enter_context(socket.socket())
        other.bind(("127.0.0.1", port))  # and does not listen: an answer would be waited for
        return [sys.executable, "-c", "raise SystemExit('cannot listen')"]


@pytest.fixture
def closing() -> Iterator[ExitStack]:
    with ExitStack() as found:
        yield found


def test_where_another_process_takes_the_free_port_the_engine_gets_another(tmp_path: Path, closing: ExitStack) -> None:
    engine = Beaten(2, closing)
    with served(engine, tmp_path, "m") as found:
        assert found.url == f"http://127.0.0.1:{engine.ports[2]}/v1"
    always = Beaten(3, closing)
    with pytest.raises(ServiceError, match="broken: ended with 1 before it answered: cannot listen"):
        served(always, tmp_path, "m").__enter__()
    assert len(always.ports) == 3


def test_where_another_process_takes_the_port_that_was_asked_for_that_is_said(
    tmp_path: Path, closing: ExitStack
) -> None:
    engine, port = Beaten(1, closing), free(0)
    with pytest.raises(RequestError, match=rf"port: {port} cannot be had .*; port=0 takes one that is free"):
        served(engine, tmp_path, "m", port).__enter__()
    assert engine.ports == [port]


def test_an_engine_is_ended_with_what_it_has_started(tmp_path: Path) -> None:
    with served(Deaf(), tmp_path, "m"):
        child = int((tmp_path / "child").read_text())
        assert alive(child)
    waiting.until(lambda: not alive(child), "the end of the engine's child")


def test_an_engine_and_what_it_has_started_end_with_a_process_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from runner.serving.server import served\n"
        "from tests.serving.test_serve import Deaf\n"
        f"with served(Deaf(), Path({str(tmp_path)!r}), 'm') as found:\n"
        f"    Path({str(tmp_path / 'engine')!r}).write_text(str(found.process.pid)); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], cwd=Path(__file__).parents[2])
    waiting.until(lambda: (tmp_path / "engine").exists() and (tmp_path / "engine").read_text(), "an engine")
    both = [int((tmp_path / name).read_text()) for name in ("child", "engine")]
    assert [alive(each) for each in both] == [True, True]
    process.kill()
    process.wait()
    waiting.until(lambda: not any(map(alive, both)), "the end of the engine and of its child")


def test_a_port_that_is_taken_is_refused_with_what_helps(tmp_path: Path) -> None:
    with served(Deaf(), tmp_path, "m") as found:
        port = int(found.url.rpartition(":")[2].removesuffix("/v1"))
        second = served(Deaf(), tmp_path, "m", port)
        with pytest.raises(RequestError, match=rf"port: {port} cannot be had .*; port=0 takes one that is free"):
            second.__enter__()


@pytest.mark.parametrize("port", ["99999", "-1", "http"])
def test_what_is_no_port_is_refused(port: str) -> None:
    with pytest.raises(RequestError, match=f"^port: .*, got {port}"):
        cli.keys([f"port={port}"], serve.Asked)


def test_an_engine_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(RequestError, match="engine: got ollama; allowed: llama_cpp, transformers, vllm"):
        engines.load("ollama")


@pytest.mark.parametrize("engine", ["llama_cpp", "transformers"])
def test_an_engine_of_this_environment_refuses_a_program(engine: str) -> None:
    with pytest.raises(RequestError, match=f"program: got /opt/p, but engine={engine} is packages .*engine=vllm"):
        engines.load(engine, "/opt/p").demand()


@pytest.mark.parametrize("program", ["/nowhere/bin/vllm", "no_such_program"])
def test_vllm_that_is_nowhere_is_refused_with_how_to_name_it(program: str) -> None:
    with pytest.raises(RequestError, match=f"program: no program {program} is found; .*program=PATH/bin/vllm"):
        engines.load("vllm", program).demand()


def test_a_program_that_is_there_and_cannot_be_run_is_refused_by_that(tmp_path: Path) -> None:
    (tmp_path / "vllm").touch(0o644)
    with pytest.raises(RequestError, match=r"program: .*/vllm is not executable; name another one, or chmod"):
        engines.load("vllm", str(tmp_path / "vllm")).demand()
    with pytest.raises(RequestError, match=r"program: .* is a folder; name the program in it"):
        engines.load("vllm", str(tmp_path)).demand()


def test_vllm_is_looked_for_in_this_environment_and_then_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("here", "on_path", "named"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "vllm").touch(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path / "on_path"))
    monkeypatch.setattr(sys, "executable", str(tmp_path / "here" / "python"))
    assert engines.load("vllm").demand() == str(tmp_path / "here" / "vllm")
    # It starts in another folder.
    assert engines.load("vllm", "named/vllm").demand() == str(tmp_path / "named" / "vllm")
    (tmp_path / "here" / "vllm").unlink()
    assert engines.load("vllm").demand() == str(tmp_path / "on_path" / "vllm")


FAILED = """\
(APIServer pid=1453) WARNING 11-27 14:25:58 [system_utils.py:255] This can cause errors like `OSError: [Errno 24]`.
(Worker pid=1673) ERROR 11-27 14:26:23 [multiproc_executor.py:953]   File "loader.py", line 7, in load
(Worker pid=1673) ERROR 11-27 14:26:23 [multiproc_executor.py:953] safetensors.SafetensorError: incomplete metadata
    raise RuntimeError(
RuntimeError: Engine core initialization failed. See root cause above.
"""


def test_the_reason_why_vllm_ends_is_the_first_error_that_it_prints() -> None:
    engine = engines.load("vllm")
    assert engine.reason(FAILED) == "safetensors.SafetensorError: incomplete metadata"
    assert engine.reason("EngineCore:\n out of memory\n") == "EngineCore: out of memory"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_vllm_computes_in_the_numbers_of_the_export_and_reports_nothing_to_its_maker(
    dtype: str, tmp_path: Path, any_vllm: Path
) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"dtype": dtype}))
    engine = engines.load("vllm", str(any_vllm))
    assert f"--dtype={dtype}" in engine.command(tmp_path, "m", 8000)
    assert engine.environment["VLLM_NO_USAGE_STATS"] == "1"
