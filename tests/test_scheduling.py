"""The order of the tests, and that a wait has an end."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests import scheduling, waiting, warm

pytestmark = pytest.mark.slow


def test_the_longest_files_come_first_and_unknown_files_before_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scheduling, "DURATIONS", tmp_path / "tests" / "durations.json")
    for name in ("short", "long", "new"):
        (tmp_path / f"{name}.py").touch()
    scheduling.DURATIONS.parent.mkdir()
    scheduling.write({"short.py::one": 1.0, "short.py::two[a::b]": 1.5, "long.py::one": 1.5, "long.py::two": 2.0})
    assert scheduling.read() == {"short.py": 2.5, "long.py": 3.5}
    items = [Item("short.py::one"), Item("long.py::one"), Item("new.py::one"), Item("short.py::two")]
    order = [item.nodeid for item in scheduling.longest_first(items)]  # type: ignore[arg-type]
    assert order == ["new.py::one", "long.py::one", "short.py::one", "short.py::two"]
    (tmp_path / "short.py").unlink()
    scheduling.write({"new.py::one": 5.0})
    assert scheduling.read().keys() == {"long.py", "new.py"}, "a file that is gone is forgotten, the others are kept"


class Item:
    """What the order looks at of a test."""

    def __init__(self, nodeid: str) -> None:
        self.nodeid = nodeid


def test_a_failure_is_printed_before_the_other_tests_have_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from tests.conftest import pytest_addoption, pytest_configure\n")
    (tmp_path / "test_it.py").write_text("def test_one():\n    assert 1 == 2\n\ndef test_two():\n    print('later')\n")
    line = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(line, cwd=warm.ROOT, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 1
    printed = done.stdout[: done.stdout.index("later")]
    assert "FAILED" in printed
    assert "test_it.py:2: assert 1 == 2" in printed


def test_a_wait_without_an_end_says_what_it_waited_for() -> None:
    with pytest.raises(AssertionError, match=r"waited 0\.1 s for the moon"):
        waiting.until(lambda: False, "the moon", seconds=0.1)


def test_a_wait_for_a_process_that_has_ended_shows_what_it_wrote() -> None:
    program = "import sys; print('one'); sys.exit('two')"
    process = warm.Popen([sys.executable, "-c", program], stdout=-1, stderr=-1, text=True, imports=warm.LIGHT)
    with pytest.raises(AssertionError, match=r"no moon: the process ended with 1: one\n\ntwo"):
        waiting.until(lambda: False, "moon", process=process)
