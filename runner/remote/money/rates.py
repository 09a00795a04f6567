"""Tokens by meter, and what they cost by a dated table of prices that a user can replace.

Meters are those of the services: training (forward_backward), prefill and sampling. Whether a `forward` is billed as
training or as prefill neither of them documents, so that there are two bounds; what is decided by price goes by the
higher one.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Annotated

import msgspec

from runner.errors import RequestError

MILLION = 1e6
Price = Annotated[float, msgspec.Meta(ge=0)]


class Rates(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Dollars for a million tokens of a model."""

    train: Price
    prefill: Price
    sample: Price


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Prices by the model's name at the service, with when and where they were read."""

    # YAML makes a day of 2026-10-07 and a text of 2026-10; msgspec takes no union of the two.
    date: object
    source: str
    models: dict[str, Rates]


@cache
def table(path: str | None, shipped: Path) -> Table:
    """Read a table of prices, the one that comes with the runner without a path.

    Raises `RequestError` where the file is missing or no such table.
    """
    where = Path(path) if path else shipped
    try:
        return msgspec.yaml.decode(where.read_bytes(), type=Table, strict=False)
    except (OSError, msgspec.MsgspecError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).splitlines()[0]
        raise RequestError(
            f"backend.prices: {where}: {reason}; it must be a table like {shipped}; fix it, or set it to null."
        ) from error


def refuse_unpriced(max_price: float | None, model: str, own: str | None, shipped: Path) -> None:
    """Raise `RequestError` for a limit on the price of a model whose price is not known."""
    if max_price is not None and model not in table(own, shipped).models:
        raise RequestError(
            f"max_price: got {max_price:g}, but {model} has no price; add it to a copy of {own or shipped} and name "
            "that, backend.prices=FILE, or leave max_price out."
        )


@dataclass(frozen=True)
class Usage:
    """Tokens by meter, `forward` apart."""

    forward_backward: int = 0
    forward: int = 0
    prefill: int = 0
    sample: int = 0

    @classmethod
    def of(cls, counted: Mapping[str, int]) -> "Usage":
        """Return what a ledger has counted."""
        return cls(*(counted.get(name, 0) for name in ("forward_backward", "forward", "prefill", "sample")))

    def dollars(self, rates: Rates) -> tuple[float, float]:
        """Return the least and the most that these tokens cost, by how a `forward` is billed."""
        # Cached prefill is cheaper, and how much of it is cached nobody knows before.
        known = self.forward_backward * rates.train + self.prefill * rates.prefill + self.sample * rates.sample
        bounds = sorted((rates.prefill, rates.train))
        low, high = (float(known + self.forward * rate) / MILLION for rate in bounds)
        return low, high

    def __str__(self) -> str:
        parts = {
            "training": self.forward_backward, "forward": self.forward, "prefill": self.prefill, "sampling": self.sample
        }  # fmt: skip
        return ", ".join(f"{count:,} {name}" for name, count in parts.items())


def trained_again(steps: int) -> str:
    """Return what so many steps cost that a new session has to repeat, as a clause."""
    if not steps:
        return "nothing is trained again"
    what = "one optimizer step is" if steps == 1 else f"{steps:,} optimizer steps are"
    return f"{what} trained, and paid for, again"
