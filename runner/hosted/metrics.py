"""What the service measured, under our names: pure functions over events' data and the results file.

Every numeric column is kept as `hosted/COLUMN`; where a column means the same as one of ours it has that name too.
"""

import base64
import binascii
import csv
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress

from runner.hosted import methods
from runner.hosted.methods import WireForm

SPLITS = {"train_": "train/", "full_valid_": "eval/"}
"""`valid_*` is measured on one batch of held-out rows and is none of ours; `full_valid_*` on all of them."""
COUNTS = ("step", "total_steps")
"""What says where a number belongs, and is none itself."""
# Columns in which -1 can only be the service's mark for what was not measured.
NEVER_NEGATIVE = re.compile(r"loss|accurac|epoch")


def metrics(data: Mapping[str, object], method: str) -> dict[str, float]:
    """Return the numbers of an event or a row by full names; what was not measured is left out."""
    flat = {column: raw for column, raw in _flattened(data) if column not in COUNTS}
    numbers = {column: value for column, raw in flat.items() if (value := _number(column, raw)) is not None}
    found = {f"hosted/{column}": value for column, value in numbers.items()}
    # A plan may be of a method that no service knows here; its numbers are kept under `hosted/` alone.
    if method in methods.names():
        form = methods.load(method)
        # Backwards, as of two columns that mean the same the first name counts.
        for naming in (_renamed, _by_split):
            found |= {ours: value for column, value in numbers.items() if (ours := naming(form, column)) is not None}
    return found


def _by_split(form: WireForm, column: str) -> str | None:
    """Return our name of a column that is one of ours behind the name of its split."""
    for split, ours in SPLITS.items():
        same = form.columns.get(column.removeprefix(split)) if column.startswith(split) else None
        if same:
            return ours + same
    return None


def _renamed(form: WireForm, column: str) -> str | None:
    """Return our name of a column that the method has a pattern for."""
    for pattern, ours in form.renamed.items():
        if match := re.fullmatch(pattern, column):
            return match.expand(ours)
    return None


def _flattened(data: Mapping[str, object], path: str = "") -> Iterator[tuple[str, object]]:
    """Yield the values of nested data, keys joined by `/` as in a results file.

    An item of a list goes by its `name`, as the service lists graders, else by its number.
    """
    for key, value in data.items():
        if isinstance(value, list):
            items = enumerate(value)
            value = {str(_name(each) or number): each for number, each in items if isinstance(each, Mapping)}
        if isinstance(value, Mapping):
            yield from _flattened(value, f"{path}{key}/")
        else:
            yield f"{path}{key}", value


def _name(item: Mapping[str, object]) -> str:
    # MLflow takes no other characters in a metric's name.
    return re.sub(r"[^\w .-]", "_", str(item.get("name") or ""))


def step_of(data: Mapping[str, object], column: str = "step") -> int | None:
    """Return the optimizer step that numbers belong to, or with `total_steps` the last one, if they name it."""
    value = _number(column, data.get(column))
    return int(value) if value is not None and value >= 0 else None


def rows(content: bytes) -> Iterator[dict[str, str]]:
    """Yield the rows of a results file, a CSV that some services send in base64; none where it is empty."""
    # utf-8-sig drops a byte order mark, as spreadsheets write it.
    text = _plain(content).decode("utf-8-sig", errors="replace")
    with suppress(csv.Error):  # what is hardly a table ends where it stops being one
        for row in csv.DictReader(text.splitlines()):
            yield {key.strip(): value for key, value in row.items() if key and isinstance(value, str)}


def _plain(content: bytes) -> bytes:
    stripped = b"".join(content.split())
    # Base64 has no commas, and a table has.
    if b"," in content or not stripped:
        return content
    try:
        return base64.b64decode(stripped, validate=True)
    except binascii.Error:
        return content


def _number(column: str, raw: object) -> float | None:
    """Return a finite number; an empty cell, text, and the service's mark for "not measured" (-1) are none.

    A reward may be -1.0: only the integer -1 is taken for the mark where negative numbers are possible.
    """
    try:
        if isinstance(raw, bool) or not isinstance(raw, str | int | float) or str(raw).strip() in ("", "-1"):
            return None
        value = float(raw)
    except (ValueError, OverflowError):
        return None
    if not math.isfinite(value) or (value == -1 and NEVER_NEGATIVE.search(column)):
        return None
    return value
