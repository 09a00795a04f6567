"""In which order the tests run, and what is printed meanwhile.

The files with the longest tests come first, so that no core waits for one long test at the end: xdist hands out the
tests, or the groups of them, in the order of collection. `durations.json` says how long each file takes;
`make test DURATIONS=1` writes it. A file that is not in it comes first.
"""

import json
from collections import defaultdict
from pathlib import Path

import pytest

DURATIONS = Path(__file__).with_name("durations.json")


def longest_first(items: list[pytest.Item]) -> list[pytest.Item]:
    """Return the tests in the order in which they are to run: files by their longest test, and unknown ones first.

    A file's tests stay together, since its fixtures are made once for it.
    """
    longest = {name: seconds["longest"] for name, seconds in read().items()}
    return sorted(items, key=lambda item: -longest.get(file_of(item.nodeid), float("inf")))


def file_of(nodeid: str) -> str:
    """Return the file of a test."""
    return nodeid.partition("::")[0]


def unit_of(nodeid: str) -> str:
    """Return what is handed out in one piece: a group, which xdist writes behind the test's name, or the test."""
    return nodeid[nodeid.rfind("@") :] if nodeid.rfind("@") > nodeid.rfind("]") else nodeid


def read() -> dict[str, dict[str, float]]:
    """Return seconds by file: of its longest test (or group of tests, which runs in one piece), and of all."""
    found: dict[str, dict[str, float]] = json.loads(DURATIONS.read_bytes()) if DURATIONS.exists() else {}
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
    by_unit: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for nodeid, took in seconds.items():
        by_unit[file_of(nodeid)][unit_of(nodeid)] += took
    found = {
        name: {"longest": round(max(each.values()), 1), "all": round(sum(each.values()), 1)}
        for name, each in by_unit.items()
    }
    kept = {name: value for name, value in read().items() if (DURATIONS.parents[1] / name).exists()}
    DURATIONS.write_text(json.dumps(kept | found, indent=1, sort_keys=True) + "\n", "utf-8")
