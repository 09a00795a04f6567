"""`run:RUN`: what an earlier run made; RUN is a folder, its name under `runs/`, or the start of its plan id."""

from pathlib import Path

from runner import run_folders
from runner.models import reference


def find(rest: str) -> Path:
    """Return a run's folder; raises `ModelError` where there is none, or several match."""
    return run_folders.find(rest, run_folders.default())


def identify(rest: str, offline: bool = False) -> str:
    """Return the digest of the run's weights; a hosted model has none."""
    from runner.models import hosted

    if hosted.read(find(rest)):
        return ""
    return reference.demand(find(rest) / "model", f"run:{rest}").digest


def cached(rest: str) -> Path | None:
    """Return the run's model folder; a hosted run has none here."""
    from runner.models import hosted

    return None if hosted.read(find(rest)) else fetch(rest)


def fetch(rest: str) -> Path:
    """Return the run's model folder; raises `ModelError` if there is no such run or it has not finished."""
    folder = find(rest) / "model"
    reference.demand(folder, f"run:{rest}")
    return folder
