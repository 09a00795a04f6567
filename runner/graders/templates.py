"""`{{ item.KEY }}` and `{{ sample.KEY }}` in the texts of a grader, with the service's meaning.

A path is a key, then `.key` or `[0]` as often as wanted. Text is inserted as it is, any other value as JSON, with
`[image]` where an image is. Inserted text is never read as a template again. Source:
https://platform.openai.com/docs/guides/graders
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cache

import msgspec

from runner.data.images import for_people
from runner.data.quoting import shown
from runner.graders import Grader, Json, Sample, Subject

NAMESPACES = ("item", "sample")
_REASONS = {"output_json": ": the answer is not JSON", "output_tools": ": the answer calls no tool"}
"""Why a key of `sample` that is allowed may be missing."""
SAMPLE_KEYS = ("output_text", "output_json", "output_tools", "choices")
# No braces within: `{{ {"a": 1} }}` stays text, as JSON in a prompt often is.
_BRACES = re.compile(r"\{\{\s*([^{}]*?)\s*\}\}")
# One brace, or none that closes: left as it is, no answer would equal it.
_ALMOST = re.compile(r"\{+\s*(?:item|sample)\.[^\s{}]*\s*\}*")
_PATH = re.compile(r"[^\s.\[\]]+(?:\.[^\s.\[\]]+|\[\d+\])*")


class MissingValueError(Exception):
    """A template names a value that the row or the answer does not have: `item.KEY is missing`."""


@dataclass(frozen=True)
class Reference:
    """A place in a template where a value is inserted, as written: `item` and `answer.values[0]`."""

    namespace: str
    path: str

    def value(self, values: Mapping[str, Json]) -> Json:
        """Return what the path leads to in the values of its namespace; raises `MissingValueError`."""
        found: Json | Mapping[str, Json] = values
        for key in re.findall(r"[^.\[\]]+", self.path):
            if isinstance(found, Mapping) and key in found:
                found = found[key]
            elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
                found = found[int(key)]
            else:
                why = _REASONS.get(key, "") if found is values and self.namespace == "sample" else ""
                raise MissingValueError(f"{self.namespace}.{self.path} is missing{why}")
        return found  # type: ignore[return-value]  # a path has a key at least, so it is no Mapping of a namespace


class Templated(Grader, frozen=True, kw_only=True):
    """A grader whose configuration has templates: what is wrong with them is reported alike for every such grader."""

    def problems(self) -> Iterable[str]:
        """Return what is wrong with the templates."""
        return problems(self.templates())

    def warnings(self) -> Iterable[str]:
        """Return what the service may read otherwise in the templates."""
        return warnings(self.templates())


def render(template: str, subject: Subject) -> str:
    """Return a template with its values inserted; raises `MissingValueError` where there is none."""
    # Once for all parts: an answer is parsed as JSON here, which the service offers as `output_json`.
    values = {"item": subject.item, "sample": sample_values(subject.sample)}
    texts = [part if isinstance(part, str) else _text(part.value(values[part.namespace])) for part in _parts(template)]
    return "".join(texts)


def paths(template: str) -> list[tuple[str, str]]:
    """Return the namespace and the path of each value that a template inserts."""
    return [(part.namespace, part.path) for part in _parts(template) if isinstance(part, Reference)]


def missing(templates: Iterable[str], item: Mapping[str, Json]) -> list[str]:
    """Return each `item.KEY` of some templates that a row does not have, once."""
    names: dict[str, None] = {}
    for template in templates:
        for part in _parts(template):
            if isinstance(part, Reference) and part.namespace == "item":
                try:
                    part.value(item)
                except MissingValueError:
                    names[f"item.{part.path}"] = None
    return list(names)


def problems(templates: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each `{{ … }}` that is no value of `item` or `sample`."""
    for template in templates:
        for inside in _BRACES.findall(template):
            namespace, _, path = inside.partition(".")
            if namespace not in NAMESPACES or not _PATH.fullmatch(path):
                yield f"got '{{{{ {inside} }}}}'; allowed in braces are item.KEY and sample.KEY."
            elif namespace == "sample" and (key := re.split(r"[.\[]", path)[0]) not in SAMPLE_KEYS:
                yield f"got sample.{key}; sample has {', '.join(SAMPLE_KEYS)}."


def warnings(templates: Iterable[str]) -> Iterator[str]:
    """Yield a sentence for each template that the service may read otherwise, and each text that was meant as one."""
    templates = list(templates)
    for text in [each for template in templates for each in _ALMOST.findall(_BRACES.sub("", template))]:
        yield f"got '{shown(text)}', which is no template and stays as it is; allowed: {{{{ item.KEY }}}}."
    for namespace, path in [each for template in templates for each in paths(template)]:
        if namespace == "item" and "[" in path:
            yield f"item.{path}: whether the service takes an index in item is not documented; fix: a key of its own."


def sample_values(sample: Sample) -> dict[str, Json]:
    """Return what `sample.KEY` means for an answer; a key is left out where the answer has no such value."""
    values: dict[str, Json] = {"output_text": sample.text, "choices": [_choice(sample)]}
    if sample.tool_calls is not None:
        values["output_tools"] = sample.tool_calls
    # Most answers are no JSON: the key is missing then, and a template that names it says so.
    with suppress(ValueError):
        values["output_json"] = parse_json(sample.text)
    return values


def parse_json(text: str) -> Json:
    """Return the value of a text that is JSON, strictly (no NaN); raises `ValueError` with the reason otherwise."""
    try:
        # msgspec and not json, which takes NaN, Infinity and lone surrogates for JSON.
        value: Json = msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeEncodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return value


def _choice(sample: Sample) -> dict[str, Json]:
    message: dict[str, Json] = {"role": "assistant", "content": sample.text}
    if sample.tool_calls is not None:
        message["tool_calls"] = sample.tool_calls
    reason = "length" if not sample.ended else "tool_calls" if sample.tool_calls else "stop"
    return {"index": 0, "message": message, "finish_reason": reason}


def _text(value: Json) -> str:
    # A judge reads text: the base64 of an image would be a million letters that say nothing, each of them paid.
    found = for_people(value)
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


@cache
def _parts(template: str) -> tuple[str | Reference, ...]:
    pieces = _BRACES.split(template)  # texts at even places, the insides of braces at odd ones
    return tuple(
        Reference(*piece.split(".", 1)) if odd and _is_reference(piece) else f"{{{{ {piece} }}}}" if odd else piece
        for odd, piece in ((index % 2, piece) for index, piece in enumerate(pieces))
    )


def _is_reference(inside: str) -> bool:
    namespace, _, path = inside.partition(".")
    return namespace in NAMESPACES and _PATH.fullmatch(path) is not None
