"""How a run came out, as others read it: the last value of each metric, and the report in its folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from runner.record.events import Metrics
from runner.record.journal import Record
from runner.record.layout import REPORT


def last_values(records: Sequence[Record]) -> dict[str, float]:
    """Return the last value of each metric: that of its latest step, whenever it was heard."""
    measured = [record.event for record in records if isinstance(record.event, Metrics)]
    values: dict[str, float] = {}
    for event in sorted(measured, key=lambda event: event.step):
        values |= event.values
    return values


def read(folder: Path) -> dict[str, Any] | None:
    """Return the report of a run's folder, if there is one."""
    path = folder / REPORT
    return msgspec.json.decode(path.read_bytes()) if path.exists() else None
