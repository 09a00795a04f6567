"""The base models that the emulated service offers."""

from collections.abc import Iterator, Mapping
from pathlib import Path


class Fetched(Mapping[str, Path]):
    """One model by its name, fetched from a source when it is first trained."""

    def __init__(self, name: str, source: str) -> None:
        self.name, self.source = name, source

    def __getitem__(self, name: str) -> Path:
        from runner import models

        if name != self.name:
            raise KeyError(name)
        return models.fetch(self.source)

    def __contains__(self, name: object) -> bool:
        return name == self.name

    def __iter__(self) -> Iterator[str]:
        yield self.name

    def __len__(self) -> int:
        return 1
