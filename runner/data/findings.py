"""What reading data brings to light: findings with their place, gathered so that a report stays small."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

Severity = Literal["error", "warning", "note"]
EXAMPLES = 5
"""Places kept of each rule; further ones are only counted."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found in the data; `line` counts from 1 (in Parquet: rows), None means the whole file.

    It was found in as many rows as `times` says, of which `line` is the first.
    """

    severity: Severity
    rule: str
    file: str
    line: int | None
    message: str
    times: int = 1

    def __str__(self) -> str:
        place = self.file if self.line is None else f"{self.file}:{self.line}"
        return f"{place}: {self.message}"


@dataclass
class Group:
    """All findings of one rule: how many, and the first few."""

    severity: Severity
    rule: str
    count: int = 0
    examples: list[Finding] = field(default_factory=list)

    @property
    def sentence(self) -> str:
        """The first one, and how many more there are."""
        severity = "left out" if self.severity == "error" else self.severity
        more = f"  (and {self.count - 1} more of this kind)" if self.count > 1 else ""
        return f"{severity}: {self.examples[0]}{more}"


class Findings:
    """Collects findings by rule, in bounded memory."""

    def __init__(self) -> None:
        self._groups: dict[tuple[Severity, str], Group] = {}

    def add(self, finding: Finding) -> None:
        """Count a finding, and keep it while its rule has few examples."""
        key = finding.severity, finding.rule
        group = self._groups.setdefault(key, Group(*key))
        # Counted always, kept only while there are few: a bad file of a million rows is a line in the report.
        group.count += finding.times
        if len(group.examples) < EXAMPLES:
            group.examples.append(finding)

    def __iter__(self) -> Iterator[Group]:
        """Yield the groups, errors first, then as they were met."""
        # What stops a run comes first; within that, the order of the file.
        order: tuple[Severity, ...] = ("error", "warning", "note")
        yield from sorted(self._groups.values(), key=lambda group: order.index(group.severity))

    def count(self, severity: Severity) -> int:
        """Return how many findings have this severity."""
        return sum(group.count for group in self._groups.values() if group.severity == severity)
