"""`run:RUN`: what an earlier run made; RUN is a folder, its name under `runs/`, or the start of its plan id."""

from pathlib import Path

from runner import models
from runner.errors import ModelError
from runner.models import hosted_model, model_reference, remote_model
from runner.models.source import Source
from runner.record import layout, run_folders


def find(rest: str) -> Path:
    """Return a run's folder; raises `ModelError` where there is none, or several match."""
    return run_folders.find(rest, run_folders.default())


class RunResult(Source):
    """Models that earlier runs made."""

    scheme = "run"

    def identify(self, rest: str, offline: bool = False) -> str:
        """Return the digest of the run's weights; a hosted model has none."""
        if hosted_model.read(find(rest)):
            return ""
        if there := _elsewhere(find(rest)):
            return there.state
        return model_reference.demand(find(rest) / layout.MODEL, f"run:{rest}").digest

    def cached(self, rest: str) -> Path | None:
        """Return the run's model folder; of one that is at a service only, the folder of its tokenizer, if here."""
        if there := _elsewhere(find(rest)):
            return models.cached(there.source)
        # A run's model is in its folder or nowhere: there is nothing to download.
        return None if hosted_model.read(find(rest)) else self.fetch(rest)

    def hosted_name(self, rest: str) -> str | None:
        """Return the name of the run's model at its hosted service, if it has one."""
        found = hosted_model.read(find(rest))
        return found.model if found else None

    def fetch(self, rest: str) -> Path:
        """Return the run's model folder; raises `ModelError` if there is no such run or it has not finished."""
        folder = find(rest) / layout.MODEL
        if there := _elsewhere(find(rest)):
            raise ModelError(f"run:{rest}: its weights are at {there.endpoint}, which gives them to nobody.")
        model_reference.demand(folder, f"run:{rest}")
        return folder


def _elsewhere(folder: Path) -> remote_model.RemoteModel | None:
    """Return where a run's model is whose weights are at a service only."""
    # A remote run whose adapter was fetched has both files, and is loaded like a local one.
    return None if model_reference.read(folder / layout.MODEL) else remote_model.read(folder)


SOURCE = RunResult()
