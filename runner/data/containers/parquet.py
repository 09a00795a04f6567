"""Parquet: columns are the keys; a row's number takes the place of its line.

Columns of bytes are texts, too: Spark writes them so. A text that is not UTF-8 is passed on as it is, and makes its
row a bad one when that is decoded; in columns that no format reads it may be anything.

Within a column all objects have the same keys: where a row has not got one, the file has null. In tools and calls,
which a chat template writes as they are, such keys are left out, as TRL does (`remove_none_values`).
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from typing import TYPE_CHECKING

import msgspec

from runner.data.containers import ROWS_WITH_IMAGES, Block, is_packed, open_text
from runner.data.formats import formats
from runner.data.quoting import shown
from runner.data.reading.files import DataFile
from runner.data.reading.image_values import COLUMNS
from runner.errors import DataError

if TYPE_CHECKING:
    from pyarrow import DataType, RecordBatch, Schema

ROWS_A_BLOCK = 1000  # rows, not bytes: a batch comes decoded
# str: dates and decimals, which no format reads.
_encode = msgspec.json.Encoder(enc_hook=str).encode


def read(file: DataFile) -> Iterator[Block]:
    """Yield the rows of all row groups.

    Raises `DataError` if pyarrow is missing, the file is damaged, or a column cannot be read.
    """
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise DataError(
            f"{file.name}: reading Parquet needs pyarrow; install it with `pip install pyarrow`, "
            "or save the data as JSON Lines."
        ) from None
    with open_text(file.path) as stream:
        if is_packed(stream):
            raise DataError(
                f"{file.name}: is Parquet within gzip or zstd; Parquet is packed by itself: unpack the file."
            )
    first = 1
    try:
        with ParquetFile(file.path) as table:
            size = ROWS_A_BLOCK if {*COLUMNS}.isdisjoint(table.schema_arrow.names) else ROWS_WITH_IMAGES
            for batch in table.iter_batches(size):
                rows = _lines(file, batch)
                numbers = range(first, first + len(rows))
                first += len(rows)
                yield Block(numbers, rows, (first - 1) / table.metadata.num_rows)
    except (ArrowException, OSError) as error:
        said = shown(str(error).strip(), 300)
        raise DataError(f"{file.name}: {said}; a whole Parquet file is needed, fetch it again.") from None
    except UnicodeDecodeError as error:
        byte = error.object[error.start]
        raise DataError(
            f"{file.name}: byte 0x{byte:02x} in the name of a column or in a nested text is not UTF-8; "
            "write the file with UTF-8 texts."
        ) from None
    except (ValueError, TypeError, OverflowError) as error:  # a time in nanoseconds, say
        said = shown(str(error).strip(), 300)
        raise DataError(f"{file.name}: a column cannot be read ({said}); leave it out of the file.") from None


def _lines(file: DataFile, batch: "RecordBatch") -> list[bytes]:
    """Return the rows of a batch as lines of JSON."""
    import pyarrow

    names = batch.schema.names
    # `to_pylist` would keep the last of them, unnoticed.
    if len(set(names)) < len(names):
        twice = next(name for place, name in enumerate(names) if name in names[:place])
        raise DataError(f"{file.name}: has more than one column '{shown(twice)}'; rename one of them.")
    # The usual file has texts that are UTF-8, and is done here.
    if not any("binary" in str(type) for type in batch.schema.types):
        try:
            return [_encode(row) for row in _rows(batch)]
        except UnicodeDecodeError:
            pass  # what is said to be text is not: look at its bytes
    types = [_of_bytes(type) for type in batch.schema.types]
    rows = _rows(batch.cast(pyarrow.schema(zip(names, types, strict=True))))
    pictures = _pictures(batch.schema)
    known = {key for format in formats().values() for key in format.all_keys}
    # Bytes that are no UTF-8 come through as they are where a format reads the key, so that decoding the row
    # says which is wrong; elsewhere (an image, say) they are of no interest.
    errors = {name: "surrogateescape" if name in known else "replace" for name in names}
    return [
        _line(
            {name: _picture(value) if name in pictures else _text(value, errors[name]) for name, value in row.items()}
        )
        for row in rows
    ]


def _rows(batch: "RecordBatch") -> list[dict[str, object]]:
    """Return the rows of a batch, their tools and calls without the keys that are another row's."""
    rows: list[dict[str, object]] = batch.to_pylist()
    # By the types: most files have none, and lose no time.
    for name in [field.name for field in batch.schema if "struct<" in str(field.type) and "tool" in str(field)]:
        for row in rows:
            row[name] = _present(row[name])
    return rows


def _present(value: object) -> object:
    """Return a value without what is null in its objects."""
    if isinstance(value, list):
        return [_present(each) for each in value]
    if isinstance(value, dict):
        return {key: _present(each) for key, each in value.items() if each is not None}
    return value


def _pictures(schema: "Schema") -> set[str]:
    """Return the columns of images that hold their bytes, as `datasets` writes them."""
    return {field.name for field in schema if field.name in COLUMNS and "binary" in str(field.type)}


def _picture(value: object) -> object:
    """Return an image's bytes as base64, in the object that `datasets` has for it; a list of them likewise."""
    if isinstance(value, list):
        return [_picture(each) for each in value]
    if isinstance(value, bytes):
        return {"bytes": b64encode(value).decode()}
    if isinstance(value, dict):
        others = {key: _text(each, "replace") for key, each in value.items() if key != "bytes"}
        return others | ({"bytes": b64encode(value["bytes"]).decode()} if value.get("bytes") else {})
    return value


def _of_bytes(type: "DataType") -> "DataType":
    """Return a column's type with bytes in place of texts, which Arrow does not check."""
    import pyarrow
    from pyarrow import types

    if types.is_string(type):
        return pyarrow.binary()
    # Large types have offsets of 64 bits; polars, for one, writes them.
    if types.is_large_string(type):
        return pyarrow.large_binary()
    if types.is_list(type):
        return pyarrow.list_(_of_bytes(type.value_type))
    if types.is_large_list(type):
        return pyarrow.large_list(_of_bytes(type.value_type))
    if types.is_struct(type):
        fields = (type.field(number) for number in range(type.num_fields))
        return pyarrow.struct([(field.name, _of_bytes(field.type)) for field in fields])
    return type


def _text(value: object, errors: str) -> object:
    """Return a value with texts in place of bytes; `errors` says what becomes of those that are not UTF-8."""
    if isinstance(value, bytes):
        return value.decode("utf-8", errors)
    if isinstance(value, list):
        return [_text(each, errors) for each in value]
    if isinstance(value, dict):
        return {key: _text(each, errors) for key, each in value.items()}
    return value


def _line(row: dict[str, object]) -> bytes:
    """Return a row as JSON; bytes that are not UTF-8 are in it as they were."""
    try:
        return _encode(row)
    except UnicodeEncodeError:
        # msgspec writes no lone surrogates, which is what such bytes have become; json does, and encoding gives
        # the bytes back.
        return json.dumps(row, default=str, ensure_ascii=False).encode("utf-8", "surrogateescape")
