"""1 if an answer is JSON that a schema allows; else 0."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from importlib.util import find_spec
from typing import Any, ClassVar

from runner.graders import Grade, Grader, Json, Subject
from runner.graders.templates import parse_json


class JsonSchema(Grader, frozen=True, kw_only=True, dict=True):
    """Holds the whole answer to `schema`, in the dialect of its `$schema`, or 2020-12; no partial credit."""

    type: ClassVar[str] = "json_schema"

    schema: dict[str, Json]

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the schema, or that the package is missing."""
        if find_spec("jsonschema") is None:
            yield "type: json_schema needs the package jsonschema; pip install 'runner[graders]'."
            return
        from jsonschema.exceptions import SchemaError

        try:
            self.validator.check_schema(self.schema)
        except SchemaError as error:
            yield f"schema{error.json_path.removeprefix('$')}: {_short(error.message)}."
        for target in _references(self.schema):
            if not target.startswith("#"):
                yield f"schema: got $ref '{target}'; allowed are places in the schema itself: '#/…'."

    def grade(self, subject: Subject) -> Grade:
        """Return 1, or 0 with the most specific of the errors and its place in the answer."""
        from jsonschema.exceptions import best_match
        from referencing.exceptions import Unresolvable

        try:
            value = parse_json(subject.sample.text)
        except ValueError as error:
            return Grade(0.0, f"not JSON: {_short(str(error))}")
        try:
            # The error nearest to the answer's top, as most is wrong there; within an `anyOf` the deepest:
            # https://python-jsonschema.readthedocs.io/en/stable/errors/#best-match-and-relevance
            wrong = best_match(self.validator.iter_errors(value))
        except Unresolvable as error:
            return Grade(None, error=f"schema: $ref '{error.ref}' leads nowhere")
        except RecursionError:
            return Grade(None, error="schema: refers to itself without end")
        return Grade(1.0) if wrong is None else Grade(0.0, f"{wrong.json_path}: {_short(wrong.message)}")

    @cached_property
    def validator(self) -> Any:
        """The schema's validator, of a library without types."""
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry

        # An empty registry: the library's own would fetch a foreign $ref from the network.
        return validator_for(self.schema, default=Draft202012Validator)(self.schema, registry=Registry())


def _references(schema: Json) -> Iterator[str]:
    if isinstance(schema, dict):
        target = schema.get("$ref")
        if isinstance(target, str):
            yield target
    for part in schema.values() if isinstance(schema, dict) else schema if isinstance(schema, list) else ():
        yield from _references(part)


def _short(text: str) -> str:
    return text if len(text) <= 200 else f"{text[:199]}…"


GRADER = JsonSchema
