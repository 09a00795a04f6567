"""Several graders and a formula of their scores. The service knows it for tuning only, not for evaluations."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import chain
from typing import ClassVar

from runner.errors import RequestError
from runner.graders import Grade, Grader, Grading, Json, Judge, Subject, make
from runner.graders.multi.formula import FUNCTIONS, Formula, FormulaError, parse


class Multi(Grader, frozen=True, kw_only=True, dict=True):
    """Grades by each of `graders`, and puts their scores together by `calculate_output`."""

    type: ClassVar[str] = "multi"
    hosted: ClassVar[bool] = True

    graders: dict[str, Json]
    """The configuration of each part by its key, which the formula uses."""
    calculate_output: str

    @cached_property
    def parts(self) -> dict[str, Grader]:
        """The graders by key; raises `RequestError` for a part that is none."""
        parts = {}
        for key, part in self.graders.items():
            if not isinstance(part, dict):
                raise RequestError(f"graders.{key}: got {part!r}; allowed is a grader: {{type: …}}.")
            if part.get("type") == self.type:
                raise RequestError(f"graders.{key}: got a multi within a multi; fix: name its graders here.")
            parts[key] = make(part, f"graders.{key}")
        return parts

    @property
    def concurrent(self) -> bool:  # type: ignore[override]  # of a multi it depends on its parts
        """Whether a part waits for a network; the others bear threads."""
        return any(part.concurrent for part in self.parts.values())

    @property
    def waits(self) -> bool:  # type: ignore[override]
        """Whether another process grades a part."""
        return any(part.waits for part in self.parts.values())

    @property
    def compares(self) -> bool:  # type: ignore[override]
        """Whether a part compares the answer with the base model's."""
        return any(part.compares for part in self.parts.values())

    @cached_property
    def formula(self) -> Formula:
        """What `calculate_output` says; raises `FormulaError`."""
        return parse(self.calculate_output)

    def templates(self) -> Iterable[str]:
        """Return the texts of all parts."""
        return chain.from_iterable(part.templates() for part in self.parts.values())

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the parts, the formula, and the keys it uses."""
        if isinstance(self.graders.get("type"), str) or not self.graders:
            yield "graders: got one grader or none; allowed is a key for each: {KEY: {type: …}}."
            return
        for key in self.graders:
            if not key.isidentifier() or key in FUNCTIONS:
                yield f"graders: the key '{key}' cannot be in a formula; fix: letters, digits and _, no function's."
        try:
            keys = self.formula.keys
            self.parts  # noqa: B018  # makes them
        except FormulaError as error:
            yield f"calculate_output: {error}."
        except RequestError as error:
            yield from str(error).splitlines()
        else:
            for key in sorted(keys - self.graders.keys()):
                yield f"calculate_output: got {key}, which is no grader's key; allowed: {', '.join(self.graders)}."

    def warnings(self) -> Iterable[str]:
        """Return the parts' own warnings, and the parts that do not count."""
        for key, part in self.parts.items():
            yield from (f"graders.{key}: {each}" for each in part.warnings())
        for key in sorted(self.parts.keys() - self.formula.keys):
            yield f"graders.{key}: not in calculate_output, so its score is shown and does not count."

    def models(self) -> Iterable[str]:
        """Return the judges of all parts."""
        return chain.from_iterable(part.models() for part in self.parts.values())

    def grade(self, subject: Subject) -> Grade:
        """Grade one answer without a judge; many are graded faster within `grading`."""
        with self.grading(None) as grade:
            return grade(subject)

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        """Lend what grades one answer by every part, each with what it needs while it grades."""
        with ExitStack() as stack:
            # Each part keeps its process or connection for all answers: a process takes 0.1 s to start.
            gradings = {key: stack.enter_context(part.grading(judge)) for key, part in self.parts.items()}
            yield lambda subject: self._together({key: grade(subject) for key, grade in gradings.items()})

    def _together(self, grades: Mapping[str, Grade]) -> Grade:
        """Return the formula's value; an error of a part is one of the whole."""
        scores = {key: grade.score for key, grade in grades.items() if grade.score is not None}
        # The service would take 0 for the part; a formula could then give a good score for an answer nobody graded.
        errors = [f"{key}: {grade.error}" for key, grade in grades.items() if grade.score is None]
        if errors:
            return Grade(None, error="; ".join(errors), parts=scores)
        reasons = "; ".join(f"{key}: {grade.reason}" for key, grade in grades.items() if grade.reason)
        try:
            return Grade(self.formula.value(scores), reasons, parts=scores)
        except FormulaError as error:
            return Grade(None, reasons, error=f"calculate_output: {error}", parts=scores)


GRADER = Multi
