"""What `python -m runner.pairs` is asked for: its keys, and the evaluation that they mean."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Annotated

from msgspec import Meta

from runner import api
from runner.data.json_value import Json
from runner.data.quality.near_duplicates import near_duplicates
from runner.errors import RequestError
from runner.evaluation import configured, evaluate, models
from runner.evaluation.evaluate import Evaluation
from runner.graders import Grader
from runner.record.graded import Asked
from runner.request import check, hydra_config
from runner.request.keys import Request, RootKeys
from runner.request.types import PositiveFloat, Share

SAMPLED = "evaluation.temperature=1"
"""Before what is typed, which may say otherwise: answers have to differ."""
TYPING_ERROR = 0.8
"""From where a key is one of ours, misspelt."""


@dataclass(frozen=True, kw_only=True)
class Keys:
    """Keys of `python -m runner.pairs`; all others are those of a request."""

    dataset: str | list[str] = "???"
    """File, glob or list of them with the prompts, and fields for the grader; rows of any shape."""
    grader: str | dict[str, Json] = "???"
    """What says which answer is better: a name in `conf/grader/`, a file, or the service's JSON."""
    model: str | None = None
    """What answers: a run, a source, an endpoint, as in `runner.evaluate`; null takes `model.source`."""
    n: Annotated[int, Meta(ge=2)] = 8
    """Answers to each prompt."""
    margin: PositiveFloat = 0.25
    """By how much the best answer's score has to exceed the worst's."""
    at_least: float | None = None
    """The score from which an answer is good enough to be imitated; null takes the grader's threshold, if any."""
    similar: Share = 0.9
    """The share of character sequences from which prompts, or a best and a worst answer, are nearly the same."""
    to: str = "pairs"
    """The folder for the rows and their card."""


@dataclass(frozen=True)
class Making:
    """The keys, and the one model's answers to be graded by the one grader; `repeated` prompts are not asked."""

    keys: Keys
    evaluation: Evaluation
    repeated: int

    @property
    def request(self) -> Request:
        """How answers are sampled, and where the judge is."""
        return self.evaluation.request

    @property
    def grader(self) -> Grader:
        """What says which answer is better."""
        return self.evaluation.graders[0]

    @property
    def model(self) -> str:
        """What the model is called in answers and grades."""
        return next(iter(self.evaluation.respondents))

    @property
    def at_least(self) -> float | None:
        """The score from which an answer is imitated."""
        return self.grader.passing_score() if self.keys.at_least is None else self.keys.at_least


def plan(overrides: Sequence[str], runs: Path) -> Making:
    """Return what overrides ask for; nothing is answered yet.

    Raises `RequestError` for a wrong key or a grader that cannot work, `DataError` for prompts that cannot be read,
    `ModelError` where there is no such model.
    """
    keys, others = _divided(overrides)
    request = check.request(api.composed(SAMPLED, *others))
    grader = configured.one(keys.grader, "grader")
    if grader.compares:
        raise RequestError(
            f"grader: {grader.name} compares an answer with another model's, and has no score for one by itself; take "
            "one that has, score_model say."
        )
    if not request.evaluation.temperature:
        raise RequestError("evaluation.temperature: got 0, by which all answers to a prompt are the same; give it 1.")
    asked = replace(request.evaluation, prompts=keys.dataset, samples_per_prompt=keys.n, graders=[keys.grader])
    # `dataset.style` is the embedded data's, and would be a second grader.
    request = replace(request, evaluation=asked, dataset=replace(request.dataset, style=None))
    name = keys.model or request.model.source
    found = evaluate.plan(request, {_called(name): models.find(name, request, runs)}, runs)
    repeats = near_duplicates([_text(row) for row in found.rows], keys.similar)
    # Before they are asked: an answer costs time or money.
    rows = [row for place, row in enumerate(found.rows) if place not in repeats]
    return Making(keys, replace(found, rows=rows), len(repeats))


def _divided(overrides: Sequence[str]) -> tuple[Keys, list[str]]:
    """Return our own keys, and the overrides that are a request's."""
    from omegaconf import OmegaConf

    # Hydra would take `dataset=FILE` for an option of conf/dataset/.
    own = [each.name for each in fields(Keys)]
    for each in overrides:
        if "=" not in each or each.startswith("-"):
            raise RequestError(f"pairs: got {each!r}; allowed: KEY=VALUE; --help shows which.")
        check.require_no_secret(each)
        _require_known(each.partition("=")[0], own)
    ours = [each for each in overrides if each.partition("=")[0] in own and not _is_option(each)]
    given = OmegaConf.to_container(OmegaConf.from_dotlist(ours))
    assert isinstance(given, Mapping)
    return check.values({str(key): value for key, value in given.items()}, Keys), [
        each for each in overrides if each not in ours
    ]


def _require_known(key: str, own: Collection[str]) -> None:
    """Raise `RequestError` for a key that was meant to be one of ours; Hydra would not know what was meant."""
    at_root = {each.name for each in fields(RootKeys)}
    close = get_close_matches(key, own, 1, TYPING_ERROR)
    if close and key not in own and key not in at_root:
        raise RequestError(f"{key}: no such key; did you mean {close[0]}? allowed: {', '.join(own)}, and a request's.")


def _is_option(override: str) -> bool:
    """Say whether it chooses a model of `conf/model/` by its name, as for a run."""
    group, _, name = override.partition("=")
    folders = (Path("conf"), hydra_config.home() / "conf")
    return group == "model" and any((folder / group / f"{name}.yaml").is_file() for folder in folders)


def _text(row: Asked) -> str:
    # Of all turns: the same last question after another conversation is another prompt.
    return "\n".join(turn.content or "" for turn in row.prompt)


def _called(name: str) -> str:
    # A source's hash would be most of the folder's name, and it is in the card as the model's identity.
    return name.partition("@sha256")[0]
