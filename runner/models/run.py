"""`run:RUN`: what an earlier run made; RUN is a folder, its name under `runs/`, or the start of its plan id."""

from pathlib import Path

from runner.errors import ModelError
from runner.models import reference


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


def find(name: str, runs: Path = Path("runs")) -> Path:
    """Return a run's folder by its path, its name or the start of its plan id.

    Raises `ModelError` where none or several fit, with what exists.
    """
    for folder in (Path(name), runs / name):
        if (folder / "journal.jsonl").exists():
            return folder
    existing = sorted(path.parent for path in runs.glob("*/journal.jsonl") if ".before-" not in path.parent.name)
    fitting = [path for path in existing if path.name.startswith(name) or path.name.rpartition("-")[2].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    what = "several runs fit" if fitting else "no such run"
    names = ", ".join(path.name for path in (fitting or existing)[:8]) or f"none in {runs}/"
    raise ModelError(f"run {name}: {what}; give one of: {names}.")
