"""Files are cut into the same rows whatever they are, with the right line numbers; broken ones are reported so."""

import gzip
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st
from zstandard import ZstdCompressor

from runner.data.containers import read_blocks
from runner.data.containers.array import BadArray, split_array
from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.reading.files import DataFile
from runner.errors import DataError
from tests.data.samples import assistant, look, reported, rows_of, simple_pair, trl_text, unhurried, user, write_parquet

ROW = '{"prompt": "Why?", "chosen": "Gas.", "rejected": "No idea."}'
PAIR = Pair((user("Why?"),), (assistant("Gas."),), (assistant("No idea."),))
ARRAY = (
    "a .json file holds one array of rows: look for a missing comma, quote or bracket, "
    "or fetch it again if it was cut off."
)
Write = Callable[[str, str | bytes], Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def to_file(name: str, content: str | bytes) -> Path:
        path = tmp_path / name
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    return to_file


def numbered(path: Path) -> list[tuple[int, Any]]:
    """Return the line and the value of each row that is JSON."""
    blocks = read_blocks(DataFile(path.name, path))
    rows = [row for block in blocks for row in zip(block.numbers, block.lines, strict=True)]
    return [(number, json.loads(line)) for number, line in rows if line.strip()]


def refusal(path: Path, **keys: Any) -> str:
    """Return what is said of a file that cannot be read, without its folder."""
    with pytest.raises(DataError) as caught:
        look(path, **keys)
    return str(caught.value).replace(f"{path.parent}/", "")


@pytest.mark.parametrize("content", [ROW, f"{ROW}\n", f"{ROW}\r\n", f"\n\n{ROW}\n \t\n", f"[{ROW}]", f" [\n{ROW}\n]\n"])
def test_line_ends_and_blank_lines_do_not_change_the_rows(write: Write, content: str) -> None:
    assert rows_of(write("data.json", content)) == [PAIR]


def test_blank_lines_are_counted(write: Write, tmp_path: Path) -> None:
    path = write("data.jsonl", f"\n{ROW}\n\r\n  \n{{}}\n")
    [message] = reported(look(path), tmp_path)
    assert message.startswith("error missing-key data.jsonl:5: the row has no `prompt`; ")


@pytest.mark.parametrize("content", [f"{ROW}\n", f"[{ROW}]"])
def test_a_byte_order_mark_is_read_over_and_reported(write: Write, tmp_path: Path, content: str) -> None:
    path = write("data.json", b"\xef\xbb\xbf" + content.encode())
    assert rows_of(path) == [PAIR]
    assert reported(look(path), tmp_path) == [
        "warning byte-order-mark data.json:1: the file begins with U+FEFF, which other programs trip over; "
        "save it without byte order mark"
    ]


@pytest.mark.parametrize("sign", ["\u2028", "\u2029", "\u0085", "\x0b", "\x0c", "\x1c"])
def test_only_lf_ends_a_line(write: Write, sign: str) -> None:
    text = json.dumps(f"Why{sign}so?", ensure_ascii=sign < " ")
    [row] = rows_of(write("data.jsonl", ROW.replace('"Why?"', text)))
    assert isinstance(row, Pair)
    assert row.prompt == (user(f"Why{sign}so?"),)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data.jsonl", b"", "data.jsonl: the file is empty; a row is needed, in JSON Lines, JSON, CSV or Parquet."),
        ("data.csv", b" \n\n", "data.csv: the file is empty; a row is needed, in JSON Lines, JSON, CSV or Parquet."),
        ("data.json", b"[]", "data.json: the file holds no rows; one at least is needed."),
        ("data.csv", b"prompt,completion\n", "data.csv: the file holds no rows; one at least is needed."),
        (
            "data.xlsx",
            b"PK\x03\x04",
            "data.xlsx: the file is a ZIP or Excel file; save its table as CSV or JSON Lines.",
        ),
        ("data.jsonl", "{}".encode("utf-16"), "data.jsonl: the file is UTF-16 text; save it as UTF-8."),
        ("data.bz2", b"BZh9", "data.bz2: the file is bzip2-compressed; unpack it, or compress it with gzip."),
        ("data.jsonl", "{}".encode("utf-16-le") * 9, "data.jsonl: the file is UTF-16 text; save it as UTF-8."),
        ("data.jsonl", "{}".encode("utf-16-be") * 9, "data.jsonl: the file is UTF-16 text; save it as UTF-8."),
        *(
            ("data.json", ROW.encode(code), "data.json: the file is UTF-32 text; save it as UTF-8.")
            for code in ("utf-32", "utf-32-le", "utf-32-be")
        ),
        (
            "data.parquet",
            "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n",
            "data.parquet: the file is a Git LFS pointer, not the data itself; fetch that with `git lfs pull`.",
        ),
        (
            "data.jsonl",
            "\n<!DOCTYPE html><html>",
            "data.jsonl: the file is a web page; perhaps a link led to a page about the data: fetch the data itself.",
        ),
        *(
            ("data.csv", blank, "data.csv: the file is blank; a header with the names of the keys is needed.")
            for blank in ("\u3000\n\u00a0", "\u3000", "\x1f\n", "\u2003\r\n\r\n\u2003")
        ),
        (
            "data.csv",
            "\n\nprompt,completion,prompt\nWhy?,Gas.,x\n",
            "data.csv:3: the header has the name 'prompt' more than once; each column needs a name of its own; "
            "rename one of them.",
        ),
        (
            "data.jsonl",
            f"\n{json.dumps(json.loads(ROW), indent=1)}\n" * 2,
            "data.jsonl:2: the object that begins here goes over several lines, but in JSON Lines each row is one "
            "line; write it so (`jq -c . FILE` does), or put the rows into one JSON array.",
        ),
        (
            "data.txt",
            "prompt\tcompletion\nWhy?\tGas.\n",
            "data.txt: looks like a table with the header 'prompt\\tcompletion'; the name of a table ends with .csv "
            "or .tsv; rename it.",
        ),
        (
            "data.txt",
            '"prompt","completion"\n"Why?","Gas."\n',
            'data.txt: looks like a table with the header \'"prompt","completion"\'; the name of a table ends with '
            ".csv or .tsv; rename it.",
        ),
        (
            "data.jsonl",
            ROW[:20],
            "data.jsonl:1: the JSON ends too early; a row is one whole object on one line; complete it.",
        ),
        (
            "data.jsonl",
            "3",
            "data.jsonl:1: the row is not an object; keys and values are needed, as {…}; repair it.",
        ),
        (
            "data.json",
            f"[{ROW},\n{ROW},\n",
            f"data.json:2: the array is not closed by `]`; {ARRAY}",
        ),
        (
            "data.json",
            f"[{ROW}\n{ROW}]",
            f"data.json:2: there is no comma before the row that begins here; {ARRAY}",
        ),
        (
            "data.json",
            f"[{ROW}]\n\n{ROW}",
            f"data.json:3: the array has ended before; {ARRAY}",
        ),
    ],
)
def test_a_file_that_cannot_be_read_is_reported_so(write: Write, name: str, content: str | bytes, message: str) -> None:
    assert refusal(write(name, content)) == message


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        (
            ROW[:-1],
            "error not-json data.jsonl:2: the JSON ends too early; a row is one whole object on one line; complete it",
        ),
        (
            ROW.replace(":", "=", 1),
            "error not-json data.jsonl:2: not JSON (expected ':' (byte 9)); a row is one whole object on one line; "
            "repair it",
        ),
        (
            f"{ROW},",
            "error not-json data.jsonl:2: a comma follows the object; in JSON Lines a row ends with its line; "
            "remove the comma",
        ),
        (
            ROW.replace("}", ",}"),
            "error not-json data.jsonl:2: not JSON (trailing comma in object (byte 60)); a row is one whole object on "
            "one line; repair it",
        ),
        (
            ROW.replace('"Why?"', "NaN"),
            "error not-json data.jsonl:2: a number is NaN or Infinity, which JSON does not allow; write null",
        ),
        (
            ROW.replace("Why?", "\\ud83d"),
            "error not-json data.jsonl:2: half a surrogate pair (\\ud800 to \\udfff) is not a character; remove it",
        ),
        (
            ROW.encode().replace(b"Why", b"\xe9"),
            "error not-utf8 data.jsonl:2: byte 0xe9 is not UTF-8, as text must be; save it as UTF-8",
        ),
        (
            ROW.replace("}", ', "more": ' + "[" * 9999),
            "error not-json data.jsonl:2: lists or objects are nested too deeply to be read; a row is flatter; "
            "repair it",
        ),
    ],
)
def test_a_broken_line_is_refused_and_the_others_are_read(
    write: Write, tmp_path: Path, bad: str | bytes, message: str
) -> None:
    line = bad.encode() if isinstance(bad, str) else bad
    path = write("data.jsonl", b"\n".join([ROW.encode(), line, ROW.replace("Gas", "Steam").encode()]))
    found = look(path)
    assert [each for each in reported(found, tmp_path) if each.startswith("error")] == [message]
    assert (found.refused, found.splits["train"].rows) == (1, 2)


def test_a_broken_item_of_an_array_is_refused_at_its_line(write: Write, tmp_path: Path) -> None:
    path = write("data.json", f'[\n{ROW},\n\n{{"prompt": nothing}},\n{ROW.replace("Gas", "Steam")}\n]')
    messages = reported(look(path), tmp_path)
    assert messages[0].startswith("error not-json data.json:4: not JSON (invalid character (byte 15)); ")
    assert len(rows_of(path)) == 2


def test_a_comma_after_the_last_item_of_an_array_is_reported(write: Write, tmp_path: Path) -> None:
    path = write("data.json", f"[\n{ROW},\n]")
    assert reported(look(path), tmp_path) == [
        "error not-json data.json:3: a comma is here, but no row follows it; remove the comma"
    ]


def test_a_forgotten_quote_spoils_one_row_where_brackets_have_their_own_lines(write: Write) -> None:
    text = json.dumps([json.loads(ROW)] * 3, indent=1).replace('Gas."', "Gas.", 1)
    assert len(rows_of(write("data.json", text))) == 2


def test_a_forgotten_quote_is_reported_where_its_row_begins(write: Write) -> None:
    rows = [ROW, ROW.replace('Gas."', "Gas."), ROW]
    assert refusal(write("data.json", "[\n" + ",\n".join(rows) + "\n]")) == (
        f"data.json:3: the row that begins here is not closed; {ARRAY}"
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_table_is_read_with_the_separator_of_its_header(write: Write, separator: str) -> None:
    table = f"prompt{separator}chosen{separator}rejected\r\nWhy?{separator}Gas.{separator}No idea.\r\n"
    assert rows_of(write("data.csv", table)) == [PAIR]


def test_a_table_with_byte_order_mark_is_read(write: Write) -> None:
    assert rows_of(write("data.csv", "\ufeff" + 'prompt,chosen,rejected\nWhy?,"Gas.",No idea.\n')) == [PAIR]


def test_a_cell_may_hold_line_breaks_quotes_and_separators(write: Write) -> None:
    path = write("data.csv", 'prompt,completion\n"Why,\r\n""so""?",Gas.\nHow?,So.\n')
    first, second = rows_of(path, "conversation")
    assert first == Conversation((user('Why,\r\n"so"?'), assistant("Gas.")))
    assert second == Conversation((user("How?"), assistant("So.")))


def test_a_header_cell_may_hold_a_line_break(write: Write, tmp_path: Path) -> None:
    path = write("data.csv", 'prompt,"notes\non it",completion\nWhy?,x,Gas.\nHow?,,So.\nWho?\n')
    assert reported(look(path, "conversation"), tmp_path) == [
        "error no-row data.csv:5: the row has 1 cell, but the header on line 1 has 3 (prompt, notes\\non it, "
        "completion); a cell for each column is needed; add what is missing, or quote the cell that holds a comma or "
        "a line break",
        "warning ignored-key notes\non it data.csv:3: the key `notes\\non it` is ignored; format trl_completion reads "
        "prompt, completion, tools; remove it, or rename it if it is one of these",
    ]
    assert len(rows_of(path, "conversation")) == 2


def test_columns_without_a_name_may_be_several(write: Write) -> None:
    assert len(rows_of(write("data.csv", "prompt,completion,,\nWhy?,Gas.,,\n"), "conversation")) == 1


def test_a_row_of_a_table_has_the_line_on_which_it_begins(write: Write) -> None:
    path = write("data.csv", 'prompt,completion\n"Why\n\nso?",Gas.\n\nHow?,So.\n')
    assert [number for number, _ in numbered(path)] == [2, 6]


@pytest.mark.parametrize(("row", "cells"), [("How?", "1 cell"), ("How?;Well;so.", "3 cells")])
def test_a_row_with_too_few_or_too_many_cells_is_refused_with_both_numbers(
    write: Write, tmp_path: Path, row: str, cells: str
) -> None:
    path = write("data.csv", f"\nprompt;completion\nWhy?;Gas.\n{row}\n")
    assert reported(look(path, "conversation"), tmp_path) == [
        f"error no-row data.csv:4: the row has {cells}, but the header on line 2 has 2 (prompt, completion); a cell "
        "for each column is needed; add what is missing, or quote the cell that holds a semicolon or a line break"
    ]


def test_a_table_whose_first_rows_all_lack_cells_is_refused_with_both_numbers(write: Write) -> None:
    assert refusal(write("data.csv", "prompt,completion\nWhy?\n"), kind="conversation") == (
        "data.csv:2: the row has 1 cell, but the header on line 1 has 2 (prompt, completion); a cell for each column "
        "is needed; add what is missing, or quote the cell that holds a comma or a line break."
    )


def test_quotes_of_a_table_must_close(write: Write) -> None:
    path = write("data.csv", 'prompt,completion\nWhy?,Gas.\nHow?,"So.\nWho?,Me.\n')
    assert refusal(path, kind="conversation") == (
        "data.csv:3: the row that begins here is not CSV (unexpected end of data); a cell with quotes or line breaks "
        "is quoted whole, its quotes doubled; repair it."
    )


def test_a_table_that_is_not_utf8_is_reported_so(write: Write) -> None:
    path = write("data.csv", b"prompt,completion\nWhy?,Caf\xe9\n")
    assert refusal(path, kind="conversation") == "data.csv: byte 0xe9 is not UTF-8; save the file as UTF-8."


@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.json"])
def test_a_gzip_that_was_cut_off_is_reported_so(write: Write, name: str) -> None:
    content = {"data.json": f"[{ROW}]", "data.jsonl": ROW, "data.csv": "prompt,chosen,rejected\nWhy?,Gas.,No.\n"}[name]
    path = write(f"{name}.gz", gzip.compress(content.encode() * 1000)[:-20])
    assert refusal(path) == f"{name}.gz: the gzip file is cut off or damaged; a whole one is needed, fetch it again."


@pytest.mark.parametrize("name", ["data.jsonl", "data.csv", "data.json"])
def test_a_zstd_file_is_read_whole_or_reported_to_be_cut_off_or_damaged(write: Write, name: str) -> None:
    rows = {"data.json": f"[{ROW}]", "data.jsonl": f"{ROW}\n", "data.csv": "prompt,chosen,rejected\nWhy?,Gas.,No.\n"}[
        name
    ]
    # Two frames, as `cat` and tools with several threads make them; the package's own reader stops after the first.
    half = len(rows) // 2
    packed = b"".join(
        ZstdCompressor(write_checksum=True).compress(part.encode()) for part in (rows[:half], rows[half:])
    )
    assert look(write(f"{name}.zst", packed)).splits["train"].rows == 1
    wrong = f"{name}.zst: the zstd file is cut off or damaged; a whole one is needed, fetch it again."
    assert refusal(write(f"{name}.zst", packed[:-5])) == wrong
    assert refusal(write(f"{name}.zst", packed[:-5] + b"?" * 5)) == wrong


@pytest.mark.parametrize("pack", [gzip.compress, ZstdCompressor().compress])
def test_a_parquet_file_that_is_packed_once_more_is_refused_as_that(
    write: Write, tmp_path: Path, pack: Callable[[bytes], bytes]
) -> None:
    write_parquet(whole := tmp_path / "whole.parquet", [trl_text(simple_pair(1))])
    assert refusal(write("data.parquet.gz", pack(whole.read_bytes()))) == (
        "data.parquet.gz: is Parquet within gzip or zstd; Parquet is packed by itself: unpack the file."
    )


def test_a_parquet_file_that_was_cut_off_is_reported_so(write: Write, tmp_path: Path) -> None:
    write_parquet(whole := tmp_path / "whole.parquet", [trl_text(simple_pair(1))])
    said = refusal(write("data.parquet", whole.read_bytes()[:-10]))
    assert said.startswith("data.parquet: ")
    assert said.endswith("; a whole Parquet file is needed, fetch it again.")


def parquet(path: Path, **columns: Any) -> Path:
    """Write columns, of which each is a pyarrow array or a list."""
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    return path


@pytest.mark.parametrize("type", [pyarrow.binary(), pyarrow.large_binary(), pyarrow.binary_view()])
def test_columns_of_bytes_are_texts_as_spark_writes_them(tmp_path: Path, type: Any) -> None:
    texts = {"prompt": "Wo wächst’s?", "chosen": "Überall.", "rejected": "Nirgends."}
    columns = {key: pyarrow.array([text.encode()], type) for key, text in texts.items()}
    expected = Pair((user("Wo wächst’s?"),), (assistant("Überall."),), (assistant("Nirgends."),))
    assert rows_of(parquet(tmp_path / "data.parquet", **columns)) == [expected]


def test_messages_with_bytes_in_them_are_texts(tmp_path: Path) -> None:
    turns = [{"role": b"user", "content": b"Why?"}, {"role": b"assistant", "content": b"Gas."}]
    type = pyarrow.list_(pyarrow.struct([("role", pyarrow.binary()), ("content", pyarrow.binary())]))
    path = parquet(tmp_path / "data.parquet", messages=pyarrow.array([turns], type))
    assert rows_of(path, "conversation") == [Conversation((user("Why?"), assistant("Gas.")))]


def test_tools_and_calls_in_parquet_have_only_the_keys_of_their_own_row(tmp_path: Path) -> None:
    rows = [
        {
            "messages": [
                {"role": "user", "content": "Look."},
                {"role": "assistant", "tool_calls": [{"function": {"name": name, "arguments": {argument: 1}}}]},
            ],
            "tools": [{"name": name, "parameters": {"properties": {argument: {"enum": [1, None]}}}}],
        }
        for name, argument in (("look", "far"), ("count", "to"))
    ]
    (tmp_path / "data.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    write_parquet(tmp_path / "data.parquet", rows)
    assert rows_of(tmp_path / "data.parquet", "conversation") == rows_of(tmp_path / "data.jsonl", "conversation")


def unchecked(*texts: bytes) -> Any:
    """Return a column that says it is of texts, as a careless writer makes it."""
    return pyarrow.array(texts, pyarrow.binary()).view(pyarrow.string())


@pytest.mark.parametrize("column", [unchecked, lambda *texts: pyarrow.array(texts, pyarrow.binary())])
def test_a_text_of_parquet_that_is_not_utf8_makes_its_row_a_bad_one(tmp_path: Path, column: Callable[..., Any]) -> None:
    path = parquet(tmp_path / "data.parquet", prompt=["Why?", "How?"], completion=column(b"Caf\xe9.", "Café.".encode()))
    assert reported(look(path, "conversation"), tmp_path) == [
        "error not-utf8 data.parquet:1: byte 0xe9 is not UTF-8, as text must be; save it as UTF-8"
    ]
    assert rows_of(path, "conversation") == [Conversation((user("How?"), assistant("Café.")))]


def test_bytes_that_nobody_reads_need_not_be_text(tmp_path: Path) -> None:
    path = parquet(tmp_path / "data.parquet", prompt=["Why?"], completion=["Gas."], key=[b"\xff"], image=[None])
    [warning] = reported(look(path, "conversation"), tmp_path)
    assert warning.startswith("warning ignored-key key data.parquet:1: ")


def test_bytes_in_a_column_of_images_that_are_none_are_refused_by_name(tmp_path: Path) -> None:
    picture = {"bytes": b"\x89PNG\xff", "path": "a.png"}
    path = parquet(tmp_path / "data.parquet", prompt=["Why?"], completion=["Gas."], image=[picture])
    [error] = reported(look(path, "conversation"), tmp_path)
    assert error.startswith("error image data.parquet:1: the image a.png is no JPEG, PNG or WEBP; convert it")


def test_a_column_name_of_parquet_that_is_not_utf8_is_a_sentence(write: Write, tmp_path: Path) -> None:
    whole = parquet(tmp_path / "whole.parquet", prompt=["Why?"], completion=["Gas."]).read_bytes()
    path = write("data.parquet", whole.replace(b"completion", b"completi\xffn"))
    assert refusal(path, kind="conversation") == (
        "data.parquet: byte 0xff in the name of a column or in a nested text is not UTF-8; write the file with UTF-8 "
        "texts."
    )


def test_a_column_of_parquet_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    table = pyarrow.Table.from_arrays([["Why?"], ["Gas."], ["No."]], ["prompt", "completion", "completion"])
    pyarrow.parquet.write_table(table, tmp_path / "data.parquet")
    assert refusal(tmp_path / "data.parquet", kind="conversation") == (
        "data.parquet: has more than one column 'completion'; rename one of them."
    )


def test_times_as_pandas_writes_them_are_passed_over(tmp_path: Path) -> None:
    times = pyarrow.array([1], pyarrow.timestamp("ns"))
    path = parquet(tmp_path / "data.parquet", prompt=["Why?"], completion=["Gas."], at=times)
    assert len(rows_of(path, "conversation")) == 1


def test_a_column_of_parquet_that_python_cannot_hold_is_a_sentence(tmp_path: Path) -> None:
    days = pyarrow.array([10_000_000], pyarrow.date32())
    path = parquet(tmp_path / "data.parquet", prompt=["Why?"], completion=["Gas."], at=days)
    assert refusal(path, kind="conversation") == (
        "data.parquet: a column cannot be read (date value out of range); leave it out of the file."
    )


def test_a_row_of_parquet_has_its_number(write: Write, tmp_path: Path) -> None:
    write_parquet(
        path := tmp_path / "data.parquet", [trl_text(simple_pair(1)), trl_text(simple_pair(2)) | {"chosen": ""}]
    )
    assert reported(look(path), tmp_path) == [
        "error empty-answer data.parquet:2: the chosen answer is empty; it needs text; write it or remove the row"
    ]


def test_rows_of_parquet_are_numbered_over_blocks(tmp_path: Path) -> None:
    rows = [trl_text(simple_pair(number)) for number in range(1, 1002)]
    write_parquet(path := tmp_path / "data.parquet", [*rows, rows[-1] | {"chosen": ""}])
    [message] = [each for each in reported(look(path), tmp_path) if each.startswith("error")]
    assert message.startswith("error empty-answer data.parquet:1002: ")


def test_an_item_of_an_array_has_the_line_on_which_it_begins(write: Write) -> None:
    path = write("data.json", json.dumps([{"a": 1}, {"a": [2, {}]}, {"a": 3}], indent=1))
    assert [number for number, _ in numbered(path)] == [2, 5, 11]


@pytest.mark.parametrize("size", [1, 4, 5, 100])
def test_what_follows_an_array_is_seen_wherever_a_block_ends(size: int) -> None:
    with pytest.raises(BadArray, match="the array has ended before"):
        split("[{}]\n\nx", size)


def test_line_numbers_continue_over_blocks(write: Write) -> None:
    long = "x" * 3000
    lines = [json.dumps({"prompt": f"{number} {long}", "completion": "So."}) for number in range(1, 2000)]
    for name, content in (("a.jsonl", "\n".join(lines)), ("b.json", "[" + ",\n".join(lines) + "]")):
        found = numbered(write(name, content))
        assert all(row["prompt"].startswith(f"{number} ") for number, row in found)
        assert len(found) == 1999


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.text(max_size=5)
    | st.sampled_from(["[", "]", "{", '"', "\\", "\n"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=6,
)
objects = st.dictionaries(st.text(max_size=3), json_values, max_size=3)


def split(text: str, size: int) -> list[tuple[int, bytes]]:
    return list(split_array(io.BytesIO(text.encode()).read, size))


@unhurried
@given(st.lists(objects, max_size=4), st.sampled_from([None, 0, 1, "\t"]), st.booleans(), st.integers(1, 20))
def test_the_array_reader_agrees_with_json(rows: list[Any], indent: Any, ascii_only: bool, size: int) -> None:
    text = json.dumps(rows, indent=indent, ensure_ascii=ascii_only)
    assert [json.loads(item) for _, item in split(text, size)] == rows


@unhurried
@given(st.lists(objects, min_size=1, max_size=4), st.data(), st.sampled_from('[]{}",:\\ \n1x'), st.integers(1, 20))
def test_the_array_reader_takes_no_broken_array_for_a_whole_one(
    rows: list[Any], data: st.DataObject, sign: str, size: int
) -> None:
    text = json.dumps(rows)
    at, removed = data.draw(st.integers(1, len(text))), data.draw(st.integers(0, 1))
    text = text[:at] + sign + text[at + removed :]
    assert only_objects(lambda: [json.loads(item) for _, item in split(text, size)]) == only_objects(
        lambda: json.loads(text)
    )


def only_objects(read: Callable[[], list[Any]]) -> list[Any] | None:
    """Return what is read, or None if that is not JSON or holds what is no row."""
    try:
        values = read()
    except (BadArray, ValueError):
        return None
    return values if all(isinstance(each, dict) for each in values) else None


@unhurried
@given(st.lists(st.sampled_from(["", " ", "\r", "row"]), max_size=12), st.sampled_from(["\n", "\r\n"]))
def test_line_numbers_are_right_amid_blank_lines(tmp_path: Path, lines: list[str], end: str) -> None:
    rows = [f'{{"line": {number}}}' if line == "row" else line for number, line in enumerate([*lines, "row"], 1)]
    path = tmp_path / "data.jsonl"
    path.write_bytes(end.join(rows).encode())
    assert numbered(path) == [(number, {"line": number}) for number, row in enumerate(rows, 1) if row.strip()]
    path.write_bytes(f"[{end.join(row + ',' * (row.strip() != '') for row in rows).rstrip(',')}]".encode())
    assert numbered(path) == [(number, {"line": number}) for number, row in enumerate(rows, 1) if row.strip()]
