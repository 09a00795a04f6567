"""The table of models: what each can be tuned with and for how much; a YAML file with a date, never code.

A model that is not in the table is not refused: the service knows better. It only has no price here.
"""

import re
from datetime import date
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from runner.errors import RequestError

SHIPPED = Path(__file__).with_name("models.yaml")


Price = Annotated[float, msgspec.Meta(ge=0)]
TrainingType = Literal["Standard", "GlobalStandard", "Developer"]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model: methods by the runner's names, US dollars, the most tokens of a row that are read, and until when."""

    # Any name: a table may know a method before the runner does.
    methods: list[str]
    # By the service's trainingType.
    training_per_million_tokens: dict[TrainingType, Price] = {}
    deployment_per_hour: Price | None = None
    max_row_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None
    # Of reinforcement jobs, which are paid by the hour and paused at a cost of so many dollars, grading included.
    training_per_hour: dict[TrainingType, Price] = {}
    cost_limit: Price | None = None
    # Where the service does not offer all of them.
    training_types: list[TrainingType] | None = None
    # Who may train it, in words; empty: everybody.
    access: str = ""
    # The service trains and deploys it at least until then.
    training_until: date | None = None
    deployments_until: date | None = None
    # When this was read, where it is not the table's date.
    read: Any = None

    def hourly(self, training_type: TrainingType) -> tuple[Price | None, bool]:
        """Return the dollars that an hour of training costs, and whether that is exact: the others cost no more than
        Standard.
        """
        exact = self.training_per_hour.get(training_type)
        return (exact, True) if exact is not None else (self.training_per_hour.get("Standard"), False)

    @property
    def dates(self) -> str:
        """Who may train the model, and until when it is trained and deployed; empty where nothing is known."""
        until = {"trained": self.training_until, "deployed": self.deployments_until}
        dates = [f"{what} at least until {day}" for what, day in until.items() if day is not None]
        return "; ".join([*([self.access] if self.access else []), *dates])


class Catalogue(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The table, with when and where it was read."""

    # YAML makes a day of 2025-12-01 and a text of 2025-12; msgspec takes no union of the two.
    date: Any
    source: str
    models: dict[str, Model]

    def find(self, name: str) -> Model | None:
        """Return a model by its name, with or without version, tuned (`ft:NAME:…`, `NAME.ft-…`) or not."""
        # gpt-4.1-mini, gpt-4.1-mini-2025-04-14, gpt-35-turbo-0125; ft:NAME:… is OpenAI's form of a tuned one,
        # NAME.ft-… Azure's.
        version, tuned = r"(?:-\d{4}(?:-\d\d-\d\d)?)?", r"(?:(?::|\.ft-).*)?"
        found = re.fullmatch(rf"(?:ft:)?(?P<bare>.+?){version}{tuned}", name)
        return self.models.get(found["bare"]) if found else None

    def demand(self, name: str, method: str) -> None:
        """Raise `RequestError` where the table says that a model cannot be tuned with a method."""
        found = self.find(name)
        if found is not None and method not in found.methods:
            able = ", ".join(known for known, model in self.models.items() if method in model.methods)
            raise RequestError(
                f"model.source: got {name}, which the service does not tune with {method}; allowed: {able}; "
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
