"""What a grader is: a score of an answer, 0 to 1, with the reason. One module per type, named as at the service.

A new grader is a module or package here that ends with `GRADER = …`, and a YAML file in `conf/grader/`. A grader *is*
its configuration, in the service's own JSON, so that one pasted from the portal works. What a grader needs while it
grades (a process, a judge) lives within `grading`; those without need only `grade`, a pure function.

Source: https://platform.openai.com/docs/guides/graders, and the same pages of Microsoft Foundry.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import ClassVar, Protocol

import msgspec

from runner.data.images import for_people
from runner.data.json_value import Json as Json
from runner.errors import RequestError
from runner.graders import secret


@dataclass(frozen=True)
class Sample:
    """An answer of a model: its text, whether it ended by itself (not at the token limit), and the tools it calls."""

    text: str
    ended: bool = True
    tool_calls: list[Json] | None = None


@dataclass(frozen=True)
class Subject:
    """An answer to grade (`sample`) to a row (`item`), with the other model's answer where there is one.

    `item` has `messages`, the prompt, and each other key of the row: what `{{ item.KEY }}` in a template means.
    """

    item: Mapping[str, Json]
    sample: Sample
    other: Sample | None = None

    @property
    def question(self) -> str:
        """The text of the prompt's last turn, with `[image]` where an image is."""
        messages = self.item.get("messages")
        last = messages[-1] if isinstance(messages, list) and messages else {}
        content = for_people(last.get("content")) if isinstance(last, dict) else ""
        return content if isinstance(content, str) else ""


@dataclass(frozen=True)
class Grade:
    """A score from 0 to 1 and why; or `error`, which says why there is none: an error is never a score of 0.

    `parts` are the scores of the graders that a `multi` puts together.
    """

    score: float | None
    reason: str = ""
    error: str = ""
    parts: Mapping[str, float] = field(default_factory=dict)


Grading = Callable[[Subject], Grade]


class Judge(Protocol):
    """A model that judges: any OpenAI-compatible endpoint, whose answers are cached so that none is paid for twice."""

    def ask(self, model: str, messages: list[Json], options: Mapping[str, Json]) -> str:
        """Return the text of the model's answer to a chat request; `options` are more of its fields.

        Raises `JudgeError` for an answer that cannot be had: refused, cut off, or the service gave up; `AccessError`
        where no other question would be answered either, which ends the grading.
        """


class Grader(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """A grader, configured by the fields of its type. `name` is what its scores are called in metrics and tables."""

    type: ClassVar[str]
    """The service's name of the type, and the module's."""
    concurrent: ClassVar[bool] = False
    """Whether several answers may be graded at a time, by threads: true for what waits for a network."""
    waits: ClassVar[bool] = False
    """Whether another process grades, so that this one can do something else meanwhile."""
    compares: ClassVar[bool] = False
    """Whether an answer is compared with the base model's (`Subject.other`), which itself has no score then."""

    secrets: ClassVar[tuple[str, ...]] = ()
    """The fields that map names to secrets, as HTTP headers do."""
    hosted: ClassVar[bool] = False
    """Whether a hosted service's reinforcement jobs know the type."""
    own_fields: ClassVar[tuple[str, ...]] = ()
    """The fields that only we know, of a type that a hosted service knows, too."""

    name: str = ""
    pass_threshold: float | None = None
    """From where an answer counts as passed, in the service's units; printed next to the mean, never subtracted."""

    @property
    def parts(self) -> Mapping[str, "Grader"]:
        """The graders that it puts together, by key."""
        return {}

    def templates(self) -> Iterable[str]:
        """Return every text of the configuration that may hold `{{ item.KEY }}` or `{{ sample.KEY }}`."""
        return ()

    def problems(self) -> Iterable[str]:
        """Return a sentence for each field that cannot work: what was found, what is allowed, the fix."""
        return ()

    def warnings(self) -> Iterable[str]:
        """Return a sentence for each thing that works here, but may not work at the service, or not safely."""
        return ()

    def models(self) -> Iterable[str]:
        """Return the judges that are asked, by the name of their model."""
        return ()

    def loads(self) -> bool:
        """Say whether a model is loaded to grade: a plan, which loads none, does not try the grader out."""
        return any(part.loads() for part in self.parts.values())

    def grade(self, subject: Subject) -> Grade:
        """Grade one answer; a pure function, which returns what goes wrong as `Grade.error`."""
        raise NotImplementedError

    def passing_score(self) -> float | None:
        """Return the `Grade.score` from which an answer counts as passed; None where no threshold is set."""
        return self.pass_threshold

    @contextmanager
    def grading(self, judge: Judge | None) -> Iterator[Grading]:
        """Lend what grades one answer; whatever it holds is given back when the block ends.

        `judge` is None where no judge is configured; only graders with `models()` need one.
        """
        yield self.grade


def names() -> list[str]:
    """Return every type of grader."""
    return [name for name in (module.name for module in iter_modules(__path__)) if hasattr(_module(name), "GRADER")]


def hosted_types() -> list[str]:
    """Return the types that hosted reinforcement jobs know."""
    return [name for name in names() if kind(name).hosted]


def kind(name: str) -> type[Grader]:
    """Return the class of a type, one of `names()`."""
    found: type[Grader] = _module(name).GRADER
    return found


def make(configuration: Mapping[str, Json], place: str) -> Grader:
    """Return the grader of a configuration; `place` says where that is, for errors.

    Raises `RequestError` with a sentence for what is wrong.
    """
    name = configuration.get("type")
    if name not in names():
        raise RequestError(f"{place}: got type {name!r}; allowed: {', '.join(names())}.")
    owner = kind(str(name))
    try:
        grader = msgspec.convert(
            {key: value for key, value in configuration.items() if key != "type"}, owner, dec_hook=secret.decode
        )
    except msgspec.ValidationError as error:
        allowed = ", ".join(each.encode_name for each in msgspec.structs.fields(owner))
        raise RequestError(f"{place}: {name}: {error}; its fields: {allowed}.") from error
    # All at once: a configuration with three mistakes is not sent back three times.
    problems = list(grader.problems())
    # Configurations within one are kept as they were typed, so a secret in them would show.
    within = [path for path in written_secrets(configuration) if path.split(".")[0] not in owner.secrets]
    problems += [f"{path}: a secret is written down; fix: $NAME, and set that environment variable." for path in within]
    if problems:
        raise RequestError("\n".join(f"{place}: {each}" for each in problems))
    return grader


def configuration(grader: Grader) -> dict[str, Json]:
    """Return the service's JSON of a grader, from which `make` makes it again; a secret is `***`, `$NAME` stays."""
    fields: dict[str, Json] = msgspec.to_builtins(grader, enc_hook=secret.encode)
    return {"type": grader.type, **fields}


def hidden(configuration: object, variables: bool = False) -> object:
    """Return configurations of graders as they were typed, with `***` in place of each secret: for what is kept.

    With `variables` also in place of `$NAME`, for what is to be the same wherever the secret is kept.
    """
    return secret.hidden(configuration, _secrets, variables)


def written_secrets(configuration: Mapping[str, Json]) -> list[str]:
    """Return where a configuration has a secret written down instead of named: `headers.NAME`."""
    return list(secret.written(configuration, _secrets))


def _secrets(name: object) -> tuple[str, ...]:
    return kind(str(name)).secrets if name in names() else ()


@cache
def _module(name: str) -> ModuleType:
    return import_module(f"{__name__}.{name}")
