"""What one process asks another one to do: check a piece of a file, and return what a survey needs of its rows."""

from collections.abc import Sequence
from typing import NamedTuple

from runner.data.containers import Block, Piece
from runner.data.findings import Finding
from runner.data.formats import named
from runner.data.measured import Measured, join, measure
from runner.data.quality.unread_keys import Met
from runner.data.reading.files import DataFile
from runner.data.reading.row_reader import good_rows, steps_of
from runner.data.splits import Divided, Selection, Split, divide

SLICE = 200
"""Rows that are decoded, checked and hashed together."""


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
    block = job.piece.read()
    return _in_slices(job, block, met) or _checked(job, block, met)


def _in_slices(job: Job, block: Block, met: Met) -> Checked | None:
    """Return what the check of a block results in if nothing is found in it; None if something is.

    Few rows at a time stay in the processor's cache from decoding to hashing, which saves a fifth of the time. A
    finding counts the rows of a whole block, so that these are then checked together.
    """
    slices: list[Checked] = []
    for at in range(0, len(block.lines), SLICE):
        numbers, lines = block.numbers[at : at + SLICE], block.lines[at : at + SLICE]
        found = _checked(job, Block(numbers, lines, block.share), slices[-1].met if slices else met)
        if len(found.divided.findings) > len(job.findings):
            return None
        slices.append(found)
    if not slices:  # a block without lines
        return None
    parts = {split: join([each.divided.parts[split] for each in slices]) for split in slices[0].divided.parts}
    return Checked(Divided(parts, job.findings), slices[-1].met)


def _checked(job: Job, block: Block, met: Met) -> Checked:
    # Made for each slice, which takes 20 µs: nothing is left over from another file or piece.
    steps = steps_of(job.file, named(job.format), job.selection.kind, met)
    rows = good_rows(job.file, block, steps)
    parts = {
        split: measure(part, job.selection.lines)
        for split, part in divide(job.selection, rows, job.splits).parts.items()
    }
    return Checked(Divided(parts, [*job.findings, *rows.findings]), steps.reader.met)
