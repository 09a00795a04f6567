"""Which format a file is in: the one that most of its first rows are recognised as.

One row would not do: it may be the very one that lacks a key.
"""

from collections import Counter
from collections.abc import Mapping
from itertools import islice

import msgspec

from runner.data.containers import Block
from runner.data.formats import Format, recognise, recognised_for
from runner.data.quoting import shown
from runner.data.reading.decode_errors import not_json
from runner.data.reading.files import DataFile
from runner.errors import DataError

ROWS = 100  # enough for a majority, and read in no time


def detect(file: DataFile, block: Block, kind: str = "") -> Format:
    """Return the format of a file, seen in its first block, for a method that learns from rows of `kind`.

    Raises `DataError` if it is none that is known, or could be several.
    """
    votes: Counter[tuple[Format, ...]] = Counter()
    problems = []
    for number, line in islice(zip(block.numbers, block.lines, strict=True), ROWS):
        try:
            # Here only keys count: a broken character in a text is reported when the row is read.
            sample = msgspec.json.decode(line.decode("utf-8", "replace"), type=dict[str, object])
        except (ValueError, RecursionError) as error:
            if line.strip():
                problems.append(f"{file.name}:{number}: {_no_object(error, line)}.")
        else:
            # All formats that fit: a file whose rows fit two is asked about, not guessed.
            found = tuple(recognise(sample, kind))
            if found:
                votes[found] += 1
            else:
                problems.append(f"{file.name}:{number}: {_unknown(sample, kind)}.")
    if not votes:
        # The first problem is enough: in a file of an unknown format every row has the same problem.
        raise DataError(problems[0] if problems else f"{file.name}: the file holds no rows; one at least is needed.")
    [(best, _)] = votes.most_common(1)
    if len(best) > 1:
        names = " or ".join(f"dataset.format={each.name}" for each in best)
        raise DataError(f"{file.name}: its rows fit several formats; say which is meant: {names}.")
    return best[0]


def _no_object(error: ValueError | RecursionError, line: bytes) -> str:
    if isinstance(error, msgspec.ValidationError):
        return "the row is not an object; keys and values are needed, as {…}; repair it"
    return str(not_json(error, line))


def _unknown(sample: Mapping[str, object], kind: str) -> str:
    known = "; ".join(f"{each.name} has {each.recognised_by}" for each in recognised_for(kind))
    keys = shown(", ".join(sample), 200) or "(none)"
    return f"a row with the keys {keys} is of no known format; {known}; rename its keys"
