"""The survey of the data: one streaming pass that checks, counts and fingerprints every row.

No row is kept, only some forty bytes of each: its line, its hash and its prompt's, and a few lengths.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import compress
from typing import Literal, NamedTuple, Protocol

import msgspec

from runner.data import kinds
from runner.data.checking.parts import measured_parts, no_garbage_collection
from runner.data.checking.processes import Pool, Processes
from runner.data.findings import EXAMPLES, Finding, Findings, Group
from runner.data.measured import Measured
from runner.data.quality.duplicates import find_repeats
from runner.data.quality.vision import Vision, images_of
from runner.data.reading.files import DataFile, locate
from runner.data.rows import BadRow, Oddity, Row
from runner.data.splits import Selection, Split, bytes_of, splits_of
from runner.data.statistics import SplitSurvey, Tally
from runner.errors import DataError


class RowCheck(Protocol):
    """What looks at rows as the model will see them."""

    def chosen(self, lines: Sequence[bytes]) -> list[int]:
        """Return the places of the rows to look at among canonical lines, which come block by block."""

    def __call__(self, rows: Sequence[Row]) -> Iterator[tuple[int, Oddity | BadRow]]:
        """Yield the place of a row among `rows`, and what is odd; a `BadRow` where nothing can be learned of it."""


class TokenLimit(NamedTuple):
    """The most tokens a row may have, and what counts those of some rows; a token takes a byte at least.

    `max_tokens + 1` may mean any larger number. `count_prompts` counts what comes before the first answer, where
    longer rows are cut: a row that is cut before its answer has nothing to learn. `key` is the limit's, for messages.
    `check` looks at rows as the model will see them; `findings` are those of the model itself.
    """

    max_tokens: int
    count_tokens: Callable[[Sequence[Row]], Sequence[int]]
    count_prompts: Callable[[Sequence[Row]], Sequence[int]] | None = None
    key: str = ""
    check: RowCheck | None = None
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
    by_file: dict[Split, dict[str, int]] = field(default_factory=dict)
    """How many rows of each file there are, in the order in which they are read."""

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


def survey(
    selection: Selection,
    limit: TokenLimit | None = None,
    report: Report = lambda progress: None,
    pool: Pool | None = None,
    vision: Vision | None = None,
) -> Survey:
    """Read the rows of a selection once, and say what they are; `report` hears after each block how far it is.

    `vision` looks at those that hold images.

    Many rows are checked by a process for each core, or by those of `pool`; what is found is the same. Bad rows and
    oddities become findings. Raises `DataError` if a file cannot be read at all.
    """
    findings = Findings()
    for finding in limit.findings if limit else ():
        findings.add(finding)
    splits = splits_of(selection)
    own = nullcontext(pool) if pool else Pool(Processes.usual(bytes_of(selection)))
    with ThreadPoolExecutor(max_workers=1) as helper, no_garbage_collection(), own as checking:
        tallies = {split: Tally(helper) for split in splits}
        share, sides = _share(selection), dict(kinds.load(selection.kind).sides)
        for split, part in measured_parts(selection, findings.add, checking):
            tallies[split].take(part)
            if split == "train":
                sides = {mark: side for mark, side in sides.items() if mark not in part.canonical}
            for finding in _odd(part, selection.kind, limit, vision):
                findings.add(finding)
            rows = sum(tally.rows for tally in tallies.values())
            report(Progress(share(part, rows), rows))
        for finding in find_repeats([tally.seen for tally in tallies.values()]):
            findings.add(finding)
        sums = {split: tally.sum() for split, tally in tallies.items()}
    by_file = {split: tally.seen.by_file() for split, tally in tallies.items()}
    for finding in (*_not_taken(selection, by_file["train"]), *_one_sided(by_file["train"], sides.values())):
        findings.add(finding)
    return Survey(sums, tuple(findings), findings.count("error"), by_file)


def _not_taken(selection: Selection, by_file: Mapping[str, int]) -> Iterator[Finding]:
    """Yield a finding for each source of a mixture without a row in it, which the numbers of rows alone would hide."""
    message = (
        "none of its rows is taken, as the source that is shortest of rows for its weight decides how many there are; "
        "give that one less weight, or more rows"
    )
    for name, each in selection.mix:
        if not any(by_file.get(file.name) for file in locate(each.source)):
            yield Finding("warning", "source-not-taken", f"dataset.mix.{name}", None, message)


def _one_sided(files: Iterable[str], missing: Collection[str]) -> Iterator[Finding]:
    """Yield a finding where all answers are judged alike; `missing` are the judgements that none has."""
    if len(missing) == 1:  # of no rows at all both are missing, which is said elsewhere
        message = (
            f"no answer is judged {''.join(missing)}; the method learns from the difference of good and bad ones; "
            "check the judgements, or add such answers"
        )
        yield Finding("warning", "one-sided", ", ".join(files), None, message)


def _share(selection: Selection) -> Callable[[Measured, int], float]:
    """Return what says, given the latest block and the rows so far, which share of the data has been read.

    It is measured in bytes; where `max_rows` ends the reading before, in rows.
    """
    total, sizes = max(1, bytes_of(selection)), dict[str, float]()
    wanted = sum(map(selection.room, splits_of(selection)))

    def share(part: Measured, rows: int) -> float:
        # By file, as the last block of one is followed by the first of the next.
        sizes[part.file.name] = part.share * part.file.path.stat().st_size
        return min(1.0, max(sum(sizes.values()) / total, rows / wanted))

    return share


def _odd(part: Measured, kind: str, limit: TokenLimit | None, vision: Vision | None) -> Iterator[Finding]:
    """Yield what is odd about rows: in their texts, their images, their tokens."""
    yield from part.odd
    # Images first: who learns from text alone has no template that could write them.
    if vision is not None and any(part.with_images):
        yield from _as_seen(part, kind, vision)
    if limit is not None:
        yield from _as_tokens(part, kind, limit)


def _as_seen(part: Measured, kind: str, vision: Vision) -> Iterator[Finding]:
    """Yield what is not known of images. Raises `DataError` for rows that cannot be trained on with them."""
    decode, lines = msgspec.json.Decoder(kinds.load(kind)).decode, part.canonical.splitlines()
    for place in compress(range(len(lines)), part.with_images):
        line = part.lines[place]
        row: Row = decode(lines[place])
        if not images_of(row):  # another key of that name, as in the schema of a tool
            continue
        try:
            for odd in vision.look(row):
                yield Finding("note", odd.rule, part.file.name, line, odd.message)
        except BadRow as bad:
            raise DataError(f"{part.file.name}:{line}: {bad}.") from None


def _as_tokens(part: Measured, kind: str, limit: TokenLimit) -> Iterator[Finding]:
    """Yield what is odd about rows as the model sees them. Raises `DataError` where nothing is left to learn."""
    decode, lines = msgspec.json.Decoder(kinds.load(kind)).decode, part.canonical.splitlines()
    yield from _too_long(part, lines, decode, limit)
    if limit.check is None:
        return
    # Few are looked at, so that not all have to be decoded once more.
    places = limit.check.chosen(lines)
    for place, odd in limit.check([decode(lines[place]) for place in places]):
        line = part.lines[places[place]]
        if isinstance(odd, BadRow):
            raise DataError(f"{part.file.name}:{line}: {odd}")
        yield Finding("warning", odd.rule, part.file.name, line, odd.message)


def _too_long(
    part: Measured, lines: Sequence[bytes], decode: Callable[[bytes], Row], limit: TokenLimit
) -> Iterator[Finding]:
    """Yield the rows over the limit; only those with more bytes than it are counted, all of a block together.

    Raises `DataError` for one whose prompt alone fills it.
    """
    # A token takes a byte at least, so most rows need no tokenizer.
    rows = zip(part.lines, lines, part.with_images, strict=True)
    # An image may take more tokens than it has bytes.
    long = [(number, decode(line)) for number, line, seen in rows if len(line) > limit.max_tokens or seen]
    counts = limit.count_tokens([row for _, row in long]) if long else []
    over = [(*each, tokens) for each, tokens in zip(long, counts, strict=True) if tokens > limit.max_tokens]
    _refuse_long_prompts(part.file, [each[:2] for each in over], limit)
    for number, _, tokens in over:
        many = f"more than {limit.max_tokens:,}" if tokens == limit.max_tokens + 1 else f"{tokens:,}"
        message = f"the row has {many} tokens; {limit.max_tokens:,} are allowed; it will be truncated"
        yield Finding("warning", "too-long", part.file.name, number, message)


def _refuse_long_prompts(file: DataFile, over: Sequence[tuple[int, Row]], limit: TokenLimit) -> None:
    if limit.count_prompts is None or not over:
        return
    counts = limit.count_prompts([row for _, row in over])
    full = [number for (number, _), tokens in zip(over, counts, strict=True) if tokens >= limit.max_tokens]
    if full:
        # All of a block, the first megabyte: whoever removes them one by one would start once for each.
        places = ", ".join(f"{file.name}:{number}" for number in full[:EXAMPLES])
        more = f" and {len(full) - EXAMPLES:,} more so far" if len(full) > EXAMPLES else ""
        raise DataError(
            f"{places}{more}: the prompt alone fills {limit.key}={limit.max_tokens} tokens, so that "
            "nothing of the answer is left to learn; shorten the prompt, remove the row or raise the limit."
        )
