"""The table of models: what each can be tuned with and for how much; a YAML file with a date, never code.

A model that is not in the table is not refused: the service knows better. It only has no price here.
"""

import re
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from runner.errors import RequestError

SHIPPED = Path(__file__).with_name("models.yaml")


Price = Annotated[float, msgspec.Meta(ge=0)]


class Model(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One model: methods by the runner's names, US dollars, the most tokens of a row that are read."""

    # Any name: a table may know a method before the runner does.
    methods: list[str]
    # By the service's trainingType.
    training_per_million_tokens: dict[Literal["Standard", "GlobalStandard", "Developer"], Price] = {}
    deployment_per_hour: Price | None = None
    max_row_tokens: Annotated[int, msgspec.Meta(ge=1)] | None = None


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
