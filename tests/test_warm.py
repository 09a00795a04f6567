"""A command that is forked by the warm server does what a fresh interpreter does: streams, signals, ends, settings."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests import waiting, warm

pytestmark = pytest.mark.slow

PROGRAMS = {
    "output": "print('one'); import sys; print('two', file=sys.stderr)",
    "code": "raise SystemExit(7)",
    "a sentence as code": "raise SystemExit('a sentence')",
    "no code": "raise SystemExit",
    "uncaught error": "def f():\n    raise ValueError('no')\nf()",
    "keyboard interrupt": "raise KeyboardInterrupt",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "terminated": "import os, signal; os.kill(os.getpid(), signal.SIGTERM)",
    "input": "import sys; print(sys.stdin.read()[::-1])",
    "at exit": "import atexit; atexit.register(print, 'ended'); print('first')",
    "thread": "import threading, time\nthreading.Thread(target=lambda: (time.sleep(0.2), print('late'))).start()",
    "settings": "import os, sys; print(os.getcwd(), sys.argv, sys.path[0], sys.warnoptions, sys.stdout.encoding)\n"
    "print(sorted(os.environ.items()), sys.executable, sys.orig_argv[1:2], os.getpgrp())",
    "warnings": "import warnings; warnings.warn('mind')",
    "handlers": "import signal; print([signal.getsignal(n) for n in (13, 15)], signal.pthread_sigmask(0, []))",
}


@pytest.mark.parametrize("program", PROGRAMS.values(), ids=PROGRAMS)
def test_a_forked_command_ends_and_prints_as_a_fresh_interpreter(program: str, tmp_path: Path) -> None:
    line = [sys.executable, "-c", program, "an argument"]
    environment = os.environ | {"ONLY_HERE": "1", "PYTHONWARNINGS": "ignore::DeprecationWarning"}
    forked = warm.run(line, cwd=tmp_path, env=environment, input="typed", imports=warm.LIGHT)
    fresh = subprocess.run(
        line, cwd=tmp_path, env=environment, input="typed", capture_output=True, text=True, check=False
    )
    assert (forked.returncode, forked.stdout) == (fresh.returncode, fresh.stdout)
    assert forked.stderr.splitlines()[-1:] == fresh.stderr.splitlines()[-1:]


def test_a_module_runs_as_main_with_its_arguments(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text("import sys, other; print(__name__, sys.argv); sys.exit(3)")
    (tmp_path / "more").mkdir()
    (tmp_path / "more" / "other.py").touch()
    line = [sys.executable, "-m", "mine", "one", "two"]
    forked = warm.run(line, cwd=tmp_path, env=os.environ | {"PYTHONPATH": f"{tmp_path}/more"}, imports=warm.LIGHT)
    assert (forked.returncode, forked.stdout) == (3, f"__main__ ['{tmp_path}/mine.py', 'one', 'two']\n")


def test_a_signal_reaches_the_process_and_its_end_is_seen() -> None:
    program = "import time; print('ready', flush=True); time.sleep(60)"
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGKILL):
        line = [sys.executable, "-c", program]
        with warm.Popen(line, stdout=-1, stderr=-1, text=True, imports=warm.LIGHT) as process:
            assert process.stdout.readline() == "ready\n"
            assert process.poll() is None
            process.send_signal(number)
            assert process.wait(30) == -number
            assert process.poll() == -number


def test_nothing_of_one_command_reaches_the_next() -> None:
    first = "import os, sys, random; os.environ['LEFT'] = '1'; sys.modules['left'] = sys; print(random.random())"
    then = "import os, sys, random; print('LEFT' in os.environ or 'left' in sys.modules); print(random.random())"
    one = warm.run([sys.executable, "-c", first]).stdout
    left, number = warm.run([sys.executable, "-c", then]).stdout.splitlines()
    assert left == "False"
    assert number != one.strip()


def test_another_runner_on_the_path_is_the_one_that_is_run(tmp_path: Path) -> None:
    (tmp_path / "runner").mkdir()
    (tmp_path / "runner" / "__init__.py").touch()
    (tmp_path / "runner" / "__main__.py").write_text("from runner import other")
    (tmp_path / "runner" / "other.py").write_text("print('another')")
    line = [sys.executable, "-m", "runner"]
    for where in ({"cwd": tmp_path}, {"cwd": "/", "env": os.environ | {"PYTHONPATH": str(tmp_path)}}):
        assert warm.run(line, imports=warm.LIGHT, **where).stdout == "another\n"


def test_the_console_of_a_command_is_as_wide_as_its_own_terminal_says() -> None:
    program = "from runner.terminal import console; print(console.terminal.width, console.errors.width)"
    environment = os.environ | {"COLUMNS": "77"}
    done = warm.run([sys.executable, "-c", program], env=environment, imports=warm.LIGHT)
    assert done.stdout == "120 77\n"


def test_threads_are_as_many_as_the_environment_says() -> None:
    program = "import torch; print(torch.get_num_threads())"
    for count in (1, 3):
        line = [sys.executable, "-c", program]
        assert warm.run(line, env=os.environ | {"OMP_NUM_THREADS": str(count)}).stdout == f"{count}\n"
    unset = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    fresh = subprocess.run(line, env=unset, capture_output=True, text=True, check=True)
    assert warm.run(line, env=unset).stdout == fresh.stdout


def test_a_command_without_an_end_is_killed_and_named() -> None:
    line = [sys.executable, "-c", "import time; print('far', flush=True); time.sleep(60)"]
    with pytest.raises(AssertionError, match=r"-c import time.*did not end within 2 s:\nfar"):
        warm.run(line, timeout=2, imports=warm.LIGHT)


def test_nothing_is_left_when_the_test_process_dies(tmp_path: Path) -> None:
    """Also not where it is killed, and has no time to say so."""
    line = [sys.executable, "-c", LEAVES_THREE_PROCESSES]
    with subprocess.Popen(line, cwd=warm.ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = process.stdout.readline().split() + process.stdout.readline().split()
        process.kill()
    assert len(pids) == 3
    waiting.until(lambda: not any(is_alive(pid) for pid in pids), f"the end of {pids}")


LEAVES_THREE_PROCESSES = """
import sys, time
from tests import waiting, warm
command = "import subprocess, time; print(subprocess.Popen(['sleep', '600']).pid, flush=True); time.sleep(600)"
print(warm.Popen([sys.executable, '-c', command], imports=()).pid, warm._SERVERS[()].process.pid, flush=True)
time.sleep(600)
"""


def is_alive(pid: str) -> bool:
    state = Path(f"/proc/{pid}/stat")
    try:
        return state.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("variable", ["PYTHONHASHSEED", "HF_HOME", "LC_ALL"])
def test_a_variable_that_is_read_at_import_cannot_differ_from_the_servers(variable: str) -> None:
    line = [sys.executable, "-c", "pass"]
    with pytest.raises(AssertionError, match=f"^{variable}: read while libraries are imported"):
        warm.run(line, env=os.environ | {variable: "0"}, imports=warm.LIGHT)
    other = os.environ | {"COLUMNS": "80", "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}
    assert warm.run(line, env=other, imports=warm.LIGHT).returncode == 0


def test_options_of_the_interpreter_and_other_programs_are_not_forked() -> None:
    assert warm.is_warm([sys.executable, "-m", "runner"])
    assert not warm.is_warm([sys.executable, "-X", "importtime", "-m", "runner"])
    assert not warm.is_warm(["sleep", "-m", "1"])
