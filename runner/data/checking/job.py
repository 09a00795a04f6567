"""What one process asks another one to do: check a piece of a file, and return what a survey needs of its rows."""

from collections.abc import Sequence
from typing import NamedTuple

from runner.data.containers import Piece
from runner.data.findings import Finding
from runner.data.formats import named
from runner.data.measured import Measured, measure
from runner.data.quality.unread_keys import Met
from runner.data.reading.files import DataFile
from runner.data.reading.row_reader import good_rows, steps_of
from runner.data.splits import Divided, Selection, Split, divide


class Job(NamedTuple):
    """A piece of a file, the name of its format, and how it is divided; `findings` are those of the file as a whole."""

    file: DataFile
    format: str
    piece: Piece
    selection: Selection
    splits: Sequence[Split]
    findings: Sequence[Finding] = ()


class Checked(NamedTuple):
    """What a survey needs of a piece, and the keys met in the file up to its end."""

    divided: Divided[Measured]
    met: Met


def check(job: Job, met: Met) -> Checked:
    """Check a piece of a file in which some keys were met before; nothing else in the file bears on what is found.

    Raises `DataError` if it cannot be read, or if the file does not hold rows of the kind wanted.
    """
    steps = steps_of(job.file, named(job.format), job.selection.kind, met)
    block = good_rows(job.file, job.piece.read(), steps)
    parts = {split: measure(part) for split, part in divide(job.selection, block, job.splits).parts.items()}
    return Checked(Divided(parts, [*job.findings, *block.findings]), steps.reader.met)
