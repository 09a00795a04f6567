"""A score by `grade(sample, item)`, a Python function of yours, run in a confined process.

The same contract as at the service: `sample` has `output_text`, `output_json`, `output_tools` and `choices` (None where
the answer has no such value), `item` the row. What may be reached from there: docs/graders.md.
"""

from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from typing import ClassVar

from runner.graders import Grade, Grader, Grading, Judge, Subject
from runner.graders.python import confinement, source
from runner.graders.python.process import Process
from runner.graders.templates import SAMPLE_KEYS, sample_values

LEAST_MEMORY = 64


class Python(Grader, frozen=True, kw_only=True):
    """Grades by the function `grade` of `source`; its score is kept as it is, outside of 0 to 1, too.

    `timeout` (seconds for one grade) and `memory` (MB) are ours; the service allows 120 s and 2 GB.
    """

    type: ClassVar[str] = "python"
    hosted: ClassVar[bool] = True
    waits: ClassVar[bool] = True
    own_fields: ClassVar[tuple[str, ...]] = ("timeout", "memory")

    source: str
    image_tag: str = ""
    """Which set of packages the service takes; nothing here."""
    timeout: float = 30.0
    memory: int = 2048

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the source and its limits."""
        if self.timeout <= 0:
            yield f"timeout: got {self.timeout:g}; allowed: seconds above 0."
        if self.memory < LEAST_MEMORY:
            yield f"memory: got {self.memory}; allowed: {LEAST_MEMORY} MB or more."
        yield from source.problems(self.source)

    def warnings(self) -> Iterable[str]:
        """Return imports that the service lacks, and what this system cannot confine."""
        yield from source.warnings(self.source)
        if lacks := confinement.missing():
            yield f"not confined on this system, which lacks {' and '.join(lacks)}: run only a source that you trust."

    def grade(self, subject: Subject) -> Grade:
        """Grade one answer in a process of its own; many are graded 1,000 times as fast within `grading`."""
        with self.grading(None) as grade:
            return grade(subject)

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        """Lend what grades one answer, all in one process, which ends with the block."""
        with closing(Process(self.source, self.timeout, self.memory)) as process:
            yield lambda subject: process.grade(
                dict.fromkeys(SAMPLE_KEYS) | sample_values(subject.sample), dict(subject.item)
            )


GRADER = Python
