"""A form that another package's own converter makes of the merged model, in a process of its own."""

import shutil
from abc import abstractmethod
from pathlib import Path

from runner.errors import ModelError
from runner.exporting import programs
from runner.exporting.exporter import Exporter, RunModel
from runner.exporting.formats import merged


class Converted(Exporter):
    """An exporter that hands the merged weights, in float32, to a converter."""

    @abstractmethod
    def command(self, source: Path, made: Path, quantization: str) -> list[str]:
        """Return what Python is called with to write `made`, which is not there yet, from a merged model's folder."""

    def write(self, model: RunModel, folder: Path, quantization: str) -> None:
        """Write the merged model, let it be converted, keep the result. Raises `ModelError` with the reason."""
        # Whole paths: the converter runs in that folder, and would take a path that is not there for a hub's name.
        ends, work = model.ends, folder.absolute() / ".work"
        source, made = work / "merged", work / "made"
        source.mkdir(parents=True)
        merged.EXPORTER.write(model, source, "float32")
        model.release()  # the converter loads them once more
        self.prepare(source)
        done = programs.called(self.command(source, made, quantization), work)
        if done.returncode or not made.is_dir():
            reason = programs.last_line(done).rstrip(".")
            raise ModelError(f"format: {self.name} cannot be made of this model: {reason}; use format=merged.")
        for each in made.iterdir():
            each.rename(folder / each.name)
        shutil.rmtree(work)
        self.finish(folder, ends)

    def prepare(self, source: Path) -> None:
        """Change what the merged model's folder has otherwise than the converter reads it."""

    def finish(self, folder: Path, ends: list[int]) -> None:
        """Correct what the converter has written, where it says other ends of an answer than the run's model obeys."""
