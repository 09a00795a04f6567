"""What tests of the training loop share: rows in memory, and what a generator of events reports and returns."""

from collections.abc import Generator, Iterable
from typing import Any

from runner.record.events import Event, Metrics
from runner.training.examples import Example


def reported(events: Generator[Event, None, Any]) -> tuple[list[Event], Any]:
    """Return what a generator yields and what it returns."""
    found = []
    while True:
        try:
            found.append(next(events))
        except StopIteration as stop:
            return found, stop.value


def rounded(values: list[Event]) -> list[tuple[int, dict[str, float]]]:
    """Return the metrics among events but for the speed."""
    return [
        (e.step, {name: value for name, value in e.values.items() if not name.startswith("system/")})
        for e in values
        if isinstance(e, Metrics)
    ]


class Listed(list[Example]):
    """Rows that are all in memory."""

    def __getitem__(self, key: Any) -> Any:
        found = super().__getitem__(key)
        return Listed(found) if isinstance(key, slice) else found

    def ready(self, numbers: Iterable[int], step: str) -> Generator[Event, None, None]:
        yield from ()


def bits(weights: Any) -> dict[str, bytes]:
    return {name: weight.detach().numpy().tobytes() for name, weight in weights.items()}
