"""Parquet: columns are the keys; a row's number stands for its line."""

from collections.abc import Iterator

import msgspec

from runner.data.containers import Block
from runner.data.files import DataFile
from runner.errors import DataError

ROWS_A_BLOCK = 1000


def read(file: DataFile) -> Iterator[Block]:
    """Yield the rows of all row groups.

    Raises `DataError` if pyarrow is missing or the file is damaged.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{file.name}: reading Parquet needs pyarrow; install it with `pip install pyarrow`, "
            "or save the data as JSON Lines."
        ) from None
    first = 1
    try:
        with ParquetFile(file.path) as table:
            for batch in table.iter_batches(ROWS_A_BLOCK):
                rows = [msgspec.json.encode(row) for row in batch.to_pylist()]
                numbers = range(first, first + len(rows))
                first += len(rows)
                yield Block(numbers, rows, (first - 1) / table.metadata.num_rows)
    except (ArrowException, OSError) as error:
        raise DataError(f"{file.name}: {error}; a whole Parquet file is needed, fetch it again.") from None
