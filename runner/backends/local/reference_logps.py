"""What the untouched model thinks of each answer, computed once and kept on disk.

The reference of preference tuning is the starting model itself, so no second model is loaded: its
log-probabilities are noted before the first step. The file holds float32, row after row, and grows as it
is computed: a killed run goes on behind the last whole row.
"""

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from runner.backends.local.logps import Layout, scores
from runner.backends.local.model import untouched
from runner.events import Event, Progress
from runner.tokens import TokenRow

_FLOAT = np.dtype("<f4")


def fill(path: Path, model: Any, rows: Sequence[TokenRow], layout: Layout) -> Generator[Event, None, None]:
    """Append the reference log-probabilities of the rows that the file lacks; every row has as many answers."""
    row_bytes = len(rows[0].answers) * _FLOAT.itemsize
    path.touch()
    done = path.stat().st_size // row_bytes
    with path.open("r+b") as file, torch.no_grad(), untouched(model):
        model.eval()
        file.truncate(done * row_bytes)
        file.seek(0, 2)
        for index in range(done, len(rows)):
            logps = scores(model, rows[index], layout).logps.float().cpu().numpy()
            file.write(logps.astype(_FLOAT).tobytes())
            file.flush()
            yield Progress("prepare", index + 1, len(rows))


def read(path: Path, num_answers: int) -> list[tuple[float, ...]]:
    """Return each row's log-probabilities, an answer each."""
    values = np.fromfile(path, _FLOAT).reshape(-1, num_answers)
    return [tuple(row) for row in values.tolist()]
