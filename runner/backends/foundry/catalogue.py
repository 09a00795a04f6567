"""The table of models: how each can be tuned and deployed, until when, and for how much; dated YAML, never code.

A model that is not in the table is not refused: the service knows better. It only has no price here.
"""

import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

import msgspec

from runner.errors import RequestError

SHIPPED = Path(__file__).with_name("models.yaml")


Price = Annotated[float, msgspec.Meta(ge=0)]
Count = Annotated[int, msgspec.Meta(ge=1)]
TrainingType = Literal["Standard", "DataZoneStandard", "GlobalStandard", "Developer"]
Sku = Literal["Standard", "DataZoneStandard", "GlobalStandard", "DeveloperTier", "ProvisionedManaged"]
# As the vendor's REST pages (developerTier) and its SDKs of jobs (GlobalStandard) and sessions (DatazoneStandard) write
# them; `Developer`, as one page has it, was refused in use with an error about another field:
# https://learn.microsoft.com/azure/foundry/openai/how-to/fine-tuning#select-a-training-type
WIRE: dict[TrainingType, str] = {
    "Standard": "Standard",
    "DataZoneStandard": "DatazoneStandard",
    "GlobalStandard": "GlobalStandard",
    "Developer": "developerTier",
}
"""The value of `trainingType` that the service takes."""
OPENAI = "OpenAI"
"""The deployment format of the service's own models, and of those that the table does not know."""


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When and where something was read."""

    # YAML makes a day of 2025-12-01 and a text of 2025-12; msgspec takes no union of the two.
    read: object
    link: str

    def __str__(self) -> str:
        """Return both, for the end of a sentence."""
        return f"(read {self.read}, {self.link})"


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the service takes of one resource: jobs that run and wait, jobs and files that it keeps, a job's size."""

    running: Count
    running_developer: Count
    queued: Count
    jobs: Count
    files: Count
    tokens: Count
    hours: Count


class ImageLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the service takes of images: so many in a row, bytes of one, rows with some in a file."""

    per_row: Count
    bytes: Count
    rows: Count


class ImageTokens(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What an image takes: so many tokens of it as a whole, and of each square into which it is divided."""

    base: Count
    tile: Count


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model: methods by the runner's names, US dollars, the most tokens of a row that are read, and until when."""

    # Any name: a table may know a method before the runner does.
    methods: list[str]
    # By the service's trainingType.
    training_per_million_tokens: dict[TrainingType, Price] = {}
    deployment_per_hour: Price | None = None
    max_row_tokens: Count | None = None
    # Of reinforcement jobs, which are paid by the hour and paused at a cost of so many dollars, grading included.
    training_per_hour: dict[TrainingType, Price] = {}
    cost_limit: Price | None = None
    # Where the service does not offer all of them; no SKU at all where a tuned model is not served as a deployment.
    training_types: list[TrainingType] | None = None
    skus: list[Sku] | None = None
    # The publisher, as the resource manager has it.
    format: str = OPENAI
    # Whether it can be trained in sessions as well.
    sessions: bool = False
    # The methods that train it on rows with images, and what these count.
    sees: list[str] = []
    image_tokens: ImageTokens | None = None
    # Who may train it, in words; empty: everybody.
    access: str = ""
    # Since then only who has tuned it before trains it; until then, at least, it is trained, and deployed.
    base_retired: date | None = None
    training_until: date | None = None
    deployments_until: date | None = None
    # When this was read, where it is not the table's date.
    read: object = None

    def hourly(self, training_type: TrainingType) -> tuple[Price | None, bool]:
        """Return the dollars that an hour of training costs, and whether that is exact: the others cost no more than
        Standard.
        """
        exact = self.training_per_hour.get(training_type)
        return (exact, True) if exact is not None else (self.training_per_hour.get("Standard"), False)

    @property
    def retires(self) -> bool:
        """Whether an end of its training is known."""
        return self.base_retired is not None or self.training_until is not None

    def dates(self, today: date) -> str:
        """Return who may train the model, and until when it is trained and deployed; empty where nothing is known."""
        base = self.base_retired
        if base is None:
            who = [self.access] if self.access else []
        elif base <= today:
            who = [f"for existing customers only, as the base model was retired on {base}"]
        else:
            who = [f"the base model retires on {base}, after that for existing customers only"]
        until = {"trained": self.training_until, "deployed": self.deployments_until}
        return "; ".join([*who, *(f"{what} at least until {day}" for what, day in until.items() if day is not None)])


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table, with when and where its prices were read, and by subject when and where the rest was."""

    date: object
    source: str
    models: dict[str, Model]
    sources: dict[str, Source] = {}
    limits: Limits | None = None
    images: ImageLimits | None = None

    def find(self, name: str) -> Model | None:
        """Return a model by its name, with or without version, tuned (`ft:NAME:…`, `NAME.ft-…`) or not."""
        # gpt-4.1-mini, gpt-4.1-mini-2025-04-14, Alibaba/qwen3.6-35b-a3b; ft:NAME:… is OpenAI's form of a tuned one,
        # NAME.ft-… Azure's.
        version, tuned = r"(?:-\d{4}(?:-\d\d-\d\d)?)?", r"(?:(?::|\.ft-).*)?"
        found = re.fullmatch(rf"(?:ft:)?(?:[\w-]+/)?(?P<bare>.+?){version}{tuned}", name)
        if not found:
            return None
        bare = {known.rpartition("/")[2].lower(): model for known, model in self.models.items()}
        return bare.get(found["bare"].lower())

    def demand(self, name: str, method: str) -> None:
        """Raise `RequestError` where the table says that a model cannot be tuned with a method."""
        found = self.find(name)
        if found is not None and method not in found.methods:
            able = ", ".join(known for known, model in self.models.items() if method in model.methods)
            sessions = "; in sessions it can be: backend=foundry_sessions" if found.sessions else ""
            raise RequestError(
                f"model.source: got {name}, which the service does not tune with {method}; allowed: {able}{sessions}; "
                "if that has changed since, correct the table (backend.models=FILE)."
            )

    def demand_training_type(self, name: str, training_type: TrainingType) -> None:
        """Raise `RequestError` where the table says that a model is not trained in that way."""
        found = self.find(name)
        if found is not None and found.training_types and training_type not in found.training_types:
            raise RequestError(
                f"backend.training_type: got {training_type}, which the service does not offer for {name}; allowed: "
                f"{', '.join(found.training_types)}; if that has changed, correct the table (backend.models=FILE)."
            )

    def demand_sku(self, name: str, sku: Sku) -> None:
        """Raise `RequestError` where the table says that the tuned model is not deployed in that way."""
        found = self.find(name)
        if found is None or found.skus is None or sku in found.skus:
            return
        if not found.skus:
            raise RequestError(
                f"backend.deploy: a tuned {name} is served by Managed Compute or Fireworks alone, which are set up in "
                "the Foundry portal; use backend.deploy=none; if that has changed, correct the table "
                "(backend.models=FILE)."
            )
        raise RequestError(
            f"backend.deployment.sku: got {sku}, which the service does not offer for a tuned {name}; allowed: "
            f"{', '.join(found.skus)}; if that has changed, correct the table (backend.models=FILE)."
        )

    def replacement(self, name: str, method: str, graded: bool) -> str:
        """Return what trains with a method in place of a model that retires; our own loop does not if it is graded."""
        gone = self.find(name)
        jobs = [
            known
            for known, model in self.models.items()
            if method in model.methods and not model.retires and not model.access and model is not gone
        ]
        on = "" if jobs else f" ({', '.join(known for known, model in self.models.items() if model.sessions)})"
        ours = [] if graded else [f"backend=foundry_sessions{on}", "backend=tinker"]
        return " or ".join([*([f"jobs on {', '.join(jobs)}"] if jobs else []), *ours])

    def said(self, subject: str) -> str:
        """Return when and where a subject was read; empty where the table does not say."""
        return f" {self.sources[subject]}" if subject in self.sources else ""


@cache
def catalogue(path: str | None) -> Catalogue:
    """Read a table, the runner's own without a path.

    Raises `RequestError` where the file is missing or not such a table.
    """
    where = Path(path) if path else SHIPPED
    try:
        return msgspec.yaml.decode(where.read_bytes(), type=Catalogue, strict=False)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise RequestError(
            f"backend.models: {where}: {reason}; it must be a table like {SHIPPED}; fix it, or set it to null."
        ) from error
