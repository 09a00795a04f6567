"""python: the service's contract `grade(sample, item)`, in a process that can do nothing but compute."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from runner.errors import RequestError
from runner.graders import Json, Sample, Subject
from runner.graders.python import confinement
from tests.graders.asking import graded, grader

NEAR = """
import re

def grade(sample, item):
    numbers = re.findall(r"-?\\d+", sample["output_text"])
    return max(0.0, 1 - abs(int(numbers[-1]) - item["answer"]) / 10) if numbers else 0.0
"""


def test_a_source_is_given_the_answer_and_the_row() -> None:
    with grader("python", source=NEAR).grading(None) as grade:
        scores = [grade(Subject({"answer": 7}, Sample(text))).score for text in ("It is 7.", "It is 5.", "None.", "99")]
    assert scores == pytest.approx([1.0, 0.8, 0.0, 0.0])


def test_an_answer_has_the_services_four_values() -> None:
    source = """
def grade(sample, item):
    assert sorted(sample) == ["choices", "output_json", "output_text", "output_tools"]
    assert sample["choices"][0]["message"]["content"] == sample["output_text"]
    return (sample["output_json"] or {}).get("n", 0) + 0.5 * len(sample["output_tools"] or [])
"""
    with grader("python", source=source).grading(None) as grade:
        assert grade(Subject({}, Sample('{"n": 0.25}'))).score == 0.25
        assert grade(Subject({}, Sample("no JSON", tool_calls=[{"id": "1"}]))).score == 0.5


@pytest.mark.parametrize("value", ["-0.007", "2", "1e300", "__import__('fractions').Fraction(1, 2)"])
def test_a_score_is_kept_as_it_is_outside_of_0_to_1_too(value: str) -> None:
    assert graded(grader("python", source=f"def grade(sample, item): return {value}"), "x").score == pytest.approx(
        {"-0.007": -0.007, "2": 2.0, "1e300": 1e300}.get(value, 0.5)
    )


def test_no_grade_depends_on_an_earlier_one() -> None:
    source = "seen = []\ndef grade(sample, item):\n    seen.append(1)\n    return len(seen)"
    with grader("python", source=source).grading(None) as grade:
        assert [grade(Subject({}, Sample("x"))).score for _ in range(3)] == [1.0, 1.0, 1.0]


def test_rows_of_many_megabytes_and_any_characters_pass() -> None:
    row = "x" * 5_000_000 + "Zürich \ud800 \x00 \n"
    source = "def grade(sample, item): return len(item['row'])"
    assert graded(grader("python", source=source), "", row=row).score == len(row)


def test_threads_may_grade_by_one_process() -> None:
    made = grader("python", source="def grade(sample, item): return item['n']")
    with made.grading(None) as grade, ThreadPoolExecutor(8) as threads:
        scores = list(threads.map(lambda n: grade(Subject({"n": n}, Sample(""))).score, range(200)))
    assert scores == list(range(200))


def test_numpy_can_be_used() -> None:
    source = (
        "import numpy\ndef grade(sample, item): return numpy.linalg.norm(numpy.ones((50, 50)) @ numpy.ones(50)) / 1e3"
    )
    grade = graded(grader("python", source=source, timeout=120), "")
    assert grade.score == pytest.approx(50 * 50**0.5 / 1e3)


def test_a_dataclass_and_a_main_block_are_no_trouble() -> None:
    source = """
from __future__ import annotations
from dataclasses import dataclass

@dataclass
class Found:
    score: float

def grade(sample, item):
    return Found(0.5).score

if __name__ == "__main__":
    raise SystemExit("only as a script")
"""
    assert graded(grader("python", source=source), "").score == 0.5


def test_the_process_ends_with_the_block() -> None:
    with grader("python", source="import os\ndef grade(sample, item): return os.getpid()").grading(None) as grade:
        process = int(grade(Subject({}, Sample(""))).score or 0)
        os.kill(process, 0)  # it is there
    with pytest.raises(ProcessLookupError):
        os.kill(process, 0)


@pytest.mark.parametrize(
    ("source", "error"),
    [
        ("def grade(sample, item):\n    return 1 / 0", "line 2: ZeroDivisionError: division by zero"),
        (
            "def grade(sample, item):\n    return help(item)\ndef help(item):\n    return item['x']",
            "line 4: KeyError: 'x'",
        ),
        (
            "import json\ndef grade(sample, item):\n    return json.loads('x')",
            "line 3: JSONDecodeError: Expecting value",
        ),
        ("def grade(sample, item):\n    return grade(sample, item)", "line 2: RecursionError: maximum recursion depth"),
        ("x = 1 / 0\ndef grade(sample, item): return 1", "line 1: ZeroDivisionError: division by zero"),
    ],
)
def test_an_exception_is_reported_in_one_line_with_its_place_in_the_source(source: str, error: str) -> None:
    grade = graded(grader("python", source=source), "")
    assert grade.score is None
    assert grade.error.startswith(error)
    assert "\n" not in grade.error


@pytest.mark.parametrize(
    ("fields", "reported"),
    [
        ({"source": "def grade(sample, item) return 1"}, "source, line 1: expected ':'."),
        ({"source": "def score(sample, item): return 1"}, "source: defines no function grade; fix: def"),
        ({"source": "x = 1\ndef grade(sample): return 1"}, "source, line 2: grade must take two arguments"),
        ({"source": "import no_such\ndef grade(s, i): return 1"}, "source, line 1: imports no_such, which is not"),
        ({"source": "#" * 256_001}, "source: more than 256,000 bytes"),
        ({"timeout": 0}, "timeout: got 0; allowed: seconds above 0."),
        ({"memory": 1}, "memory: got 1; allowed: 64 MB or more."),
    ],
)  # fmt: skip
def test_a_source_that_cannot_grade_is_refused(fields: dict[str, Json], reported: str) -> None:
    with pytest.raises(RequestError) as error:
        grader("python", **({"source": NEAR} | fields))
    assert str(error.value).startswith(f"evaluation.graders[0]: {reported}")


def test_an_import_that_the_service_lacks_is_a_warning() -> None:
    source = (
        "import json, numpy.linalg\nfrom yaml import load\ndef grade(sample, item):\n    import msgspec\n    return 1"
    )
    reported = [each for each in grader("python", source=source).warnings() if "confined" not in each]
    assert reported == ["source, line 4: imports msgspec, which a hosted grader (image 2025-05-08) cannot."]


@pytest.mark.skipif("seccomp" in confinement.missing(), reason="needs seccomp itself, to be refused the rest")
def test_a_system_that_does_not_confine_is_a_warning() -> None:
    code = """
from runner.graders import make
from runner.graders.python import confinement
made = make({"type": "python", "source": "def grade(sample, item): return 1"}, "")
confinement._restrict_calls()  # from here on the system refuses both
print(*made.warnings())
"""
    reported = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert reported == (
        "not confined on this system, which lacks seccomp and landlock: run only a source that you trust.\n"
    )


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="procfs")
def test_the_process_holds_nothing_of_its_parent(tmp_path: Path) -> None:
    source = "import time\ndef grade(sample, item): return __import__('os').getpid()"
    with (tmp_path / "open").open("w"), grader("python", source=source).grading(None) as grade:
        process = int(grade(Subject({}, Sample(""))).score or 0)
        opened = {str(path.readlink()).partition(":")[0] for path in Path(f"/proc/{process}/fd").iterdir()}
        assert opened == {"pipe", "/dev/null"}
