"""A source that does harm ends as an error of its grade, in time; the next grade works, and nothing else is touched."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from runner.graders import Grade, Grading, Sample, Subject
from runner.graders.python import confinement
from tests.graders.asking import grader

RUNS_THE_ANSWER = """
def grade(sample, item):
    scope = {"item": item}
    exec(sample["output_text"], scope)
    return scope["score"]
"""
confined = pytest.mark.skipif(bool(confinement.missing()), reason="this system has no seccomp or no Landlock")


@pytest.fixture(scope="module")
def grading() -> Iterator[Grading]:
    """Grade by running the answer, which has as long as it needs."""
    with grader("python", source=RUNS_THE_ANSWER, memory=256, timeout=60).grading(None) as grade:
        yield grade


@pytest.fixture(scope="module")
def hasty() -> Iterator[Grading]:
    """Grade by running the answer, for a second at most."""
    with grader("python", source=RUNS_THE_ANSWER, memory=256, timeout=1).grading(None) as grade:
        yield grade


def error_of(grade: Grading, code: str, **item: str) -> str:
    """Return the error of a code, after which an innocent one must be graded."""
    found = grade(Subject(item, Sample(code)))
    assert found.score is None, f"{found}"
    assert grade(Subject({}, Sample("score = 0.5"))) == Grade(0.5)
    return found.error


@pytest.mark.parametrize("code", ["while True: pass", "while True: print('x' * 1_000_000)"])
def test_what_does_not_end_is_ended(hasty: Grading, code: str) -> None:
    assert error_of(hasty, code) == "took longer than 1 s"


@pytest.mark.parametrize(
    "code", ["x = []\nwhile True: x.append(bytearray(10_000_000))", "score = len(bytearray(10**10))"]
)
def test_memory_is_limited(grading: Grading, code: str) -> None:
    assert error_of(grading, code) == "line 4: MemoryError"


@pytest.mark.parametrize(
    ("code", "error"),
    [
        ("score = None", "returned None, not a number"),
        ("score = True", "returned a bool, not a number"),
        ("score = '1'", "returned a str, not a number"),
        ("score = [1.0]", "returned a list, not a number"),
        ("score = 1j", "returned a complex, not a number"),
        ("score = float('nan')", "returned nan, not a finite number"),
        ("score = float('-inf')", "returned -inf, not a finite number"),
        ("score = 10 ** 400", "OverflowError: int too large to convert to float"),
        ("raise ValueError('no')", "line 4: ValueError: no"),
        ("raise KeyboardInterrupt", "line 4: KeyboardInterrupt"),
        ("import sys; sys.exit(3)", "line 4: SystemExit: 3"),
        ("input()", "line 4: EOFError: EOF when reading a line"),
        ("import os; os._exit(3)", "ended its process with exit code 3"),
        ("import ctypes; ctypes.string_at(0)", "ended by SIGSEGV"),
        ("import os; os.closerange(0, 64); os._exit(0)", "ended its process with exit code 0"),
        (
            "import os\nfor fd in range(3, 9):\n  try: os.write(fd, b'x' * 10**6)\n  except OSError: pass",
            "wrote to the",
        ),
        ("class Odd(Exception):\n  def __str__(self): 1 / 0\nraise Odd", "line 4: Odd"),
    ],
)
def test_what_gives_no_number_is_an_error_that_says_so(grading: Grading, code: str, error: str) -> None:
    assert error_of(grading, code).startswith(error)


def test_a_gigabyte_that_is_printed_goes_nowhere(grading: Grading, capfd: pytest.CaptureFixture[str]) -> None:
    code = "import sys\nfor _ in range(500): print('x' * 1_000_000); sys.stderr.write('x' * 1_000_000)\nscore = 1"
    assert grading(Subject({}, Sample(code))).score == 1.0
    assert capfd.readouterr() == ("", "")


@confined
@pytest.mark.parametrize(
    "code",
    [
        "import os; os.fork()",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import subprocess; subprocess.run(['true'])",
        "import os; os.kill(os.getppid(), 9)",
        "import os, signal; os.killpg(0, 9)",
        "import socket; socket.socket()",
        "import fcntl, os; [fcntl.fcntl(fd, fcntl.F_SETOWN, os.getppid()) for fd in (3, 4)]",
        "import resource; resource.setrlimit(resource.RLIMIT_AS, (-1, -1))",
        "import ctypes; score = 'refused' if ctypes.CDLL(None).syscall(101, 16, 1, 0, 0) == -1 else 1",
        "open('/etc/passwd')",
        "open('/proc/self/environ')",
        "open('/dev/null', 'w')",
    ],
)
def test_other_processes_files_and_the_network_are_out_of_reach(grading: Grading, code: str) -> None:
    error = error_of(grading, code)
    assert any(reported in error for reported in ("PermissionError", "not allowed to raise maximum limit", "a str")), (
        error
    )


@confined
def test_no_thread_can_be_started(grading: Grading) -> None:
    assert "can't start new thread" in error_of(grading, "import threading; threading.Thread(target=print).start()")


@confined
@pytest.mark.parametrize(
    "code",
    [
        "open(item['path'] + '/kept', 'w')",
        "open(item['path'] + '/kept', 'r+')",
        "open(item['path'] + '/kept', 'a')",
        "open(item['path'] + '/kept')",
        "open(item['path'] + '/new', 'x')",
        "import os; os.remove(item['path'] + '/kept')",
        "import os; os.rename(item['path'] + '/kept', item['path'] + '/new')",
        "import os; os.mkdir(item['path'] + '/new')",
        "import os; os.chmod(item['path'] + '/kept', 0)",
        "import os; os.truncate(item['path'] + '/kept', 0)",
        "import os; os.symlink('/', item['path'] + '/new')",
        "import os; os.listdir(item['path'])",
        "import sqlite3; sqlite3.connect(item['path'] + '/new').execute('create table x (y)')",
    ],
)
def test_files_can_be_neither_read_nor_written(grading: Grading, tmp_path: Path, code: str) -> None:
    (tmp_path / "kept").write_text("as it was")
    assert any(
        reported in error_of(grading, code, path=str(tmp_path)) for reported in ("PermissionError", "unable to open")
    )
    assert [path.name for path in tmp_path.iterdir()] == ["kept"]
    assert (tmp_path / "kept").read_text() == "as it was"


@confined
def test_no_connection_arrives(grading: Grading) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        error_of(grading, f"import urllib.request; urllib.request.urlopen('http://127.0.0.1:{port}')")
        with pytest.raises(BlockingIOError):
            server.accept()


@pytest.mark.parametrize(
    ("column", "header"),
    [(0, "/usr/include/x86_64-linux-gnu/asm/unistd_64.h"), (1, "/usr/include/asm-generic/unistd.h")],
    ids=["x86_64", "aarch64"],
)
def test_numbers_of_system_calls_are_the_kernels(column: int, header: str) -> None:
    if not Path(header).exists():
        pytest.skip("no headers of the kernel")
    lines = re.findall(r"#define __NR(?:3264)?_(\w+) (\d+)\n", Path(header).read_text("utf-8"))
    kernel = {name: int(number) for name, number in lines}
    kernel.setdefault("newfstatat", kernel.get("fstatat", -1))  # one call, two names
    others = {**confinement._OPENS, **confinement._ONLY}
    ours = {**confinement._CALLS, **{name: numbers for name, (numbers, _) in others.items()}}
    ours["prlimit64"] = confinement._PRLIMIT
    assert {name: numbers[column] for name, numbers in ours.items()} == {name: kernel.get(name, -1) for name in ours}


def test_variables_of_the_environment_are_not_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVICE_KEY", "secret")
    code = "import os; score = float('SERVICE_KEY' in os.environ)"
    with grader("python", source=RUNS_THE_ANSWER).grading(None) as grade:
        assert grade(Subject({}, Sample(code))).score == 0.0
