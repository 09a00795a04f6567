"""In which order the tests run, and what is printed meanwhile.

xdist hands out whole files (`--dist loadfile`), so that a file's fixtures are made once, in the order of collection:
the longest files first, so that no core waits for one at the end. `durations.json` says how many seconds each file
takes; `make test DURATIONS=1` writes it. A file that is not in it comes first.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.json")


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which they are to run: the longest files first, and unknown ones before."""
    seconds = read()
    return sorted(items, key=lambda item: -seconds.get(file_of(item.nodeid), float("inf")))


def file_of(nodeid: str) -> str:
    """Return the file of a test."""
    return nodeid.partition("::")[0]


def read() -> dict[str, float]:
    """Return the seconds that each file takes."""
    found: dict[str, float] = json.loads(DURATIONS.read_bytes()) if DURATIONS.exists() else {}
    return found


class Reporter:
    """Prints each failure when it comes, and notes how long tests take. Of several processes, the first has it."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._seconds: dict[str, float] = defaultdict(float)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._seconds[report.nodeid] += report.duration
        if report.failed:
            terminal = self._config.pluginmanager.get_plugin("terminalreporter")
            terminal.ensure_newline()
            terminal.write_line(f"FAILED {report.nodeid} ({report.when}, {report.duration:.1f} s)", red=True)
            terminal.write_line(short(report))

    def pytest_sessionfinish(self) -> None:
        if self._config.getoption("--write-durations"):
            write(self._seconds)


def short(report: pytest.TestReport) -> str:
    """Return where a test failed and with which message, but not the whole traceback."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = f"{crash.path}:{crash.lineno}: {crash.message}" if crash else report.longreprtext
    return text if len(text) < 3000 else f"{text[:1500]}\n…\n{text[-1500:]}"


def write(seconds: dict[str, float]) -> None:
    """Write how long each file takes; files of which nothing ran keep what is noted."""
    found: dict[str, float] = defaultdict(float)
    for nodeid, took in seconds.items():
        found[file_of(nodeid)] += took
    kept = {name: value for name, value in read().items() if (DURATIONS.parents[1] / name).exists()}
    rounded = {name: round(value, 1) for name, value in found.items()}
    DURATIONS.write_text(json.dumps(kept | rounded, indent=1, sort_keys=True) + "\n", "utf-8")
