"""The survey of the data: one streaming pass that checks, counts and fingerprints every row.

No row is kept, only some forty bytes of each: its line, its hash and its prompt's, and a few lengths.
"""

import gc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Literal, NamedTuple

from runner.data.findings import Finding, Findings, Group
from runner.data.quality.duplicates import find_repeats
from runner.data.quality.text_rules import odd_rows
from runner.data.reading.row_reader import RowBlock
from runner.data.rows import BadRow, Oddity, Row, canonical
from runner.data.splits import Selection, Split, bytes_of, row_blocks, splits_of
from runner.data.statistics import SplitSurvey, Tally
from runner.errors import DataError


class TokenLimit(NamedTuple):
    """The most tokens a row may have, and what counts those of some rows; a token takes a byte at least.

    `max_tokens + 1` may mean any larger number. `count_prompts` counts what comes before the first answer, where
    longer rows are cut: a row that is cut before its answer has nothing to learn. `key` is the limit's, for messages.
    `check` looks at rows, given with their canonical lines, as the model will see them: it yields a row's place and
    what is odd, `BadRow` where nothing can be learned; `findings` are those of the model itself.
    """

    max_tokens: int
    count_tokens: Callable[[Sequence[Row]], Sequence[int]]
    count_prompts: Callable[[Sequence[Row]], Sequence[int]] | None = None
    key: str = ""
    check: Callable[[Sequence[Row], bytes], Iterator[tuple[int, Oddity | BadRow]]] | None = None
    findings: Sequence[Finding] = ()


class Progress(NamedTuple):
    """How far a survey is: which share of the data has been read, from 0 to 1, and how many good rows it had."""

    share: float
    rows: int


Report = Callable[[Progress], object]


@dataclass(frozen=True)
class Survey:
    """What the rows of a selection are, by split, and what was found; `refused` rows are in no split."""

    splits: dict[Split, SplitSurvey]
    findings: tuple[Group, ...]
    refused: int

    @property
    def errors(self) -> list[Finding]:
        """The reasons for which rows were refused, a few of each kind."""
        return [each for group in self.findings if group.severity == "error" for each in group.examples]

    def require_trainable(self, on_bad_row: Literal["stop", "skip"]) -> None:
        """Raise `DataError` if rows were refused and are not to be skipped, or if a split has none left."""
        found = self.refused + sum(split.rows for split in self.splits.values())
        # A few of each kind: a file with a million bad rows has the same fault a million times.
        reasons = "\n".join(str(each) for each in self.errors)
        refused = f"{reasons}; {self.refused} of {found} rows cannot be trained on"
        if self.refused and on_bad_row == "stop":
            raise DataError(f"{refused}: fix them, or leave them out with dataset.on_bad_row=skip.")
        for name, split in self.splits.items():
            if not split.rows and self.refused:
                raise DataError(f"{refused} and none is left for {name}; fix them.")
            if not split.rows:
                raise DataError(
                    f"dataset.validation_fraction: no row falls to {name}; at least one is needed; "
                    "change the fraction, give dataset.validation or more rows."
                )


def survey(selection: Selection, limit: TokenLimit | None = None, report: Report = lambda progress: None) -> Survey:
    """Read the rows of a selection once, and say what they are; `report` hears after each block how far it is.

    Bad rows and oddities become findings. Raises `DataError` if a file cannot be read at all.
    """
    findings = Findings()
    for finding in limit.findings if limit else ():
        findings.add(finding)
    splits = splits_of(selection)
    with ThreadPoolExecutor(max_workers=1) as helper, _no_garbage_collection():
        tallies = {split: Tally(helper) for split in splits}
        share = _share(selection)
        for split, block in row_blocks(selection, splits, findings.add):
            # Encoded once: the fingerprint, the search for odd texts and the count of bytes share these lines.
            lines = selection.lines(block.rows)
            tallies[split].take(block, lines)
            for finding in chain(_odd_texts(block, lines), _as_tokens(block, lines, limit) if limit else ()):
                findings.add(finding)
            rows = sum(tally.rows for tally in tallies.values())
            report(Progress(share(block, rows), rows))
        for finding in find_repeats([tally.seen for tally in tallies.values()]):
            findings.add(finding)
        sums = {split: tally.sum() for split, tally in tallies.items()}
    return Survey(sums, tuple(findings), findings.count("error"))


def _share(selection: Selection) -> Callable[[RowBlock, int], float]:
    """Return what says, given the latest block and the rows so far, which share of the data has been read.

    It is measured in bytes; where `max_rows` ends the reading before, in rows.
    """
    total, sizes = max(1, bytes_of(selection)), dict[str, float]()
    wanted = sum(map(selection.room, splits_of(selection)))

    def share(block: RowBlock, rows: int) -> float:
        # By file, as the last block of one is followed by the first of the next.
        sizes[block.file.name] = block.share * block.file.path.stat().st_size
        return min(1.0, max(sum(sizes.values()) / total, rows / wanted))

    return share


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Rows have no cycles, and looking for some takes a tenth of the time."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _odd_texts(block: RowBlock, canonical: bytes) -> Iterator[Finding]:
    for place, odd in odd_rows(block.rows, canonical):
        yield Finding("warning", odd.rule, block.file.name, block.lines[place], odd.message)


def _as_tokens(block: RowBlock, lines: bytes, limit: TokenLimit) -> Iterator[Finding]:
    """Yield what is odd about rows as the model sees them. Raises `DataError` where nothing is left to learn."""
    yield from _too_long(block, limit)
    for place, odd in limit.check(block.rows, lines) if limit.check else ():
        if isinstance(odd, BadRow):
            raise DataError(f"{block.file.name}:{block.lines[place]}: {odd}")
        yield Finding("warning", odd.rule, block.file.name, block.lines[place], odd.message)


def _too_long(block: RowBlock, limit: TokenLimit) -> Iterator[Finding]:
    """Yield the rows over the limit; only those with more bytes than it are counted, all of a block together.

    Raises `DataError` for one whose prompt alone fills it.
    """
    long = [
        (number, row)
        for number, row in zip(block.lines, block.rows, strict=True)
        # A token takes a byte at least, so most rows need no tokenizer.
        if len(canonical(row)) > limit.max_tokens
    ]
    counts = limit.count_tokens([row for _, row in long]) if long else []
    over = [(*each, tokens) for each, tokens in zip(long, counts, strict=True) if tokens > limit.max_tokens]
    _refuse_long_prompts(block, [each[:2] for each in over], limit)
    for number, _, tokens in over:
        many = f"more than {limit.max_tokens:,}" if tokens == limit.max_tokens + 1 else f"{tokens:,}"
        message = f"the row has {many} tokens; {limit.max_tokens:,} are allowed; it will be truncated"
        yield Finding("warning", "too-long", block.file.name, number, message)


def _refuse_long_prompts(block: RowBlock, over: Sequence[tuple[int, Row]], limit: TokenLimit) -> None:
    if limit.count_prompts is None or not over:
        return
    for (number, _), tokens in zip(over, limit.count_prompts([row for _, row in over]), strict=True):
        if tokens >= limit.max_tokens:
            raise DataError(
                f"{block.file.name}:{number}: the prompt alone fills {limit.key}={limit.max_tokens} tokens, so that "
                "nothing of the answer is left to learn; shorten the prompt, remove the row or raise the limit."
            )
