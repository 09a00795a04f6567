"""Damages valid files of every container and shape in a thousand ways and surveys each.

    python -m tests.data.mutations --first 0 --count 1000        # or --seconds 300

Every file is made from its number alone, so that what went wrong can be made again. The survey has to return, or to
raise `DataError` with one sentence, within `DEADLINE_SECONDS`; what else it does is printed with the file's number.
"""

import argparse
import gzip
import json
import resource
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

from runner.data.formats import formats
from runner.data.splits import Selection
from runner.data.survey import TokenLimit, survey
from runner.errors import DataError
from tests.data.samples import CONTAINERS, SHAPES, TEXT_SHAPES, Raw, simple_pair, write_csv, write_parquet

DEADLINE_SECONDS = 20
MEMORY_BYTES = 8 << 30
"""Address space of the process: a damaged Parquet file may name any size."""
ROWS = 4
TURNS: Raw = {"messages": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Gas."}]}
CONVERSATIONS: Sequence[Raw] = [
    TURNS,
    {"prompt": "Why?", "completion": "Gas."},
    {"instruction": "Why?", "input": "", "output": "Gas.", "history": [["Hm?", "So."]]},
    {"conversations": [{"from": "human", "value": "Why?"}, {"from": "gpt", "value": "Gas."}]},
    {"messages": [each | {"content": [{"type": "text", "text": each["content"]}]} for each in TURNS["messages"]]},
    TURNS | {"tools": [{"type": "function", "function": {"name": "look"}}], "score": 1.5},
]
TOKENS = [
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b",",
        b":",
        b'"',
        b"'",
        b"\\",
        b"\n",
        b"\r\n",
        b"\r",
        b"\t",
        b";",
        b"\0",
        b" ",
        b"",
        b"1",
    ),
    *(b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"9" * 400, b"[" * 3000, b"{}", b"[]", b'""'),
    *(b"\\ud83d", b"\\u0000", b"\xff", b"\xe9", b"\xed\xa0\xbd", b"\xef\xbb\xbf", b"PAR1", b"\x1f\x8b", b"\xff\xfe"),
    *(text.encode() for text in ("\u3000", "\u00a0", "\x1f", "\u2028", "\u200b", "\ufffd", "é", "🦊", "{{\n x \n}}")),
    *(text.encode() for text in ("<<48/2\u00a0=24>>", "<|im_end|>", "\n\nHuman:", "\n\nAssistant:", "role", "content")),
    *(b'"label": true,', b'"images": [1],', b'"function_call": {},', b'"x": 1,', b'"weight": 7,', b'"tools": "[]",'),
    *(b'"content": [{"type": "text", "value": "x"}],', b'"content": ["x"],', b'"role": "tool",', b'"role": 3,'),
]
SUFFIXES = [".jsonl", ".json", ".csv", ".tsv", ".parquet", ".txt", ".jsonl.gz", ".csv.gz", ""]
Mutation = Callable[[Random, bytes], bytes]


@cache
def valid_files() -> Sequence[tuple[str, bytes]]:
    """Return the name's ending and the content of a file of each container and shape."""
    pairs = [simple_pair(number) for number in range(ROWS)]
    rows = [[shape(pair) for pair in pairs] for shape in SHAPES.values()] + [[row] * ROWS for row in CONVERSATIONS]
    texts = [[shape(pair) for pair in pairs] for shape in TEXT_SHAPES.values()] + [[CONVERSATIONS[1]] * ROWS]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")

        def content(write: Callable[[Path, Sequence[Raw]], None], given: Sequence[Raw]) -> bytes:
            write(path, given)
            return path.read_bytes()

        files = [(f".{name}", content(write, given)) for name, write in CONTAINERS.items() for given in rows]
        files += [(".csv", content(write_csv, given)) for given in texts]
        files += [(".tsv", content(write_csv, given).replace(b",", b"\t")) for given in texts]
        as_bytes = [{key: value.encode() for key, value in row.items()} for row in [CONVERSATIONS[1]] * ROWS]
        return [*files, (".parquet", content(write_parquet, as_bytes))]


def _place(chance: Random, content: bytes) -> int:
    return chance.randrange(len(content) + 1)


def put_token(chance: Random, content: bytes) -> bytes:
    """Put a token anywhere."""
    at = _place(chance, content)
    return content[:at] + chance.choice(TOKENS) + content[at:]


def replace_byte(chance: Random, content: bytes) -> bytes:
    """Change one byte."""
    at = _place(chance, content)
    return content[:at] + bytes([chance.randrange(256)]) + content[at + 1 :]


def cut_out(chance: Random, content: bytes) -> bytes:
    """Leave a part out: up to a hundred bytes, or all that follows."""
    at = _place(chance, content)
    return content[:at] + content[at + chance.choice([1, 5, 100, len(content)]) :]


def repeat(chance: Random, content: bytes) -> bytes:
    """Put a part in again."""
    first, last = sorted((_place(chance, content), _place(chance, content)))
    return content[:last] + content[first:last] * chance.choice([1, 1, 2, 50]) + content[last:]


def join_another(chance: Random, content: bytes) -> bytes:
    """Continue with a part of another file."""
    _, other = chance.choice(valid_files())
    return content[: _place(chance, content)] + other[_place(chance, other) :]


def change_key(chance: Random, content: bytes) -> bytes:
    """Exchange two words that are keys, wherever they are."""
    words = [key.encode() for format in formats().values() for key in format.all_keys] + [b"role", b"content", b"value"]
    one, other = chance.sample(words, 2)
    return content.replace(one, other, chance.choice([1, -1]))


def replace_blanks(chance: Random, content: bytes) -> bytes:
    """Put other blanks in the place of some."""
    blank = chance.choice(["\u3000", "\u00a0", "\x1f", "\u2028", "\t", "\n", ""]).encode()
    return content.replace(chance.choice([b" ", b"\n", b","]), blank)


def encode_otherwise(chance: Random, content: bytes) -> bytes:
    """Write the text in another encoding."""
    code = chance.choice(["utf-16", "utf-16-le", "utf-32", "utf-32-be", "latin-1", "utf-8-sig", "cp1252"])
    return content.decode("utf-8", "replace").encode(code, "replace")


def pack(chance: Random, content: bytes) -> bytes:
    """Compress it."""
    return gzip.compress(content, mtime=0)


def only_blanks(chance: Random, content: bytes) -> bytes:
    """Leave blanks alone."""
    return "".join(chance.choices("\u3000\u00a0\x1f \n\r\t\u2028\x0c", k=chance.randint(1, 9))).encode()


MUTATIONS: dict[Mutation, int] = {
    put_token: 8, replace_byte: 6, cut_out: 4, repeat: 2, join_another: 2, change_key: 4, replace_blanks: 1,
    encode_otherwise: 1, pack: 1, only_blanks: 1,
}  # fmt: skip
"""Each with how often it is taken."""


def damaged(number: int) -> tuple[str, bytes, dict[str, Any]]:
    """Return a damaged file: how its name ends, its content, and what is asked of it."""
    chance = Random(number)
    suffix, content = chance.choice(valid_files())
    packed = suffix.endswith(".gz") and chance.random() < 0.8
    content = gzip.decompress(content) if packed else content
    for mutation in chance.choices([*MUTATIONS], [*MUTATIONS.values()], k=chance.choice([1, 1, 2, 3])):
        content = mutation(chance, content)
    keys = {
        "kind": chance.choice(["preference", "conversation"]),
        "format": chance.choice(["auto", "auto", *formats()]),
        "validation_fraction": chance.choice([0.0, 0.0, 0.5]),
        "max_rows": chance.choice([None, None, 1, 3]),
    }
    name = suffix if chance.random() < 0.8 else chance.choice(SUFFIXES)
    return name, gzip.compress(content, mtime=0) if packed else content, keys


def problem(number: int, folder: Path) -> str | None:
    """Survey a damaged file; return what is wrong with the answer, None if nothing is."""
    suffix, content, keys = damaged(number)
    path = folder / f"data{suffix}"
    path.write_bytes(content)
    limit = TokenLimit(20, lambda rows: [len(rows)] * len(rows))
    try:
        with deadline():
            found = survey(Selection(train=str(path), **keys), limit)
            said = [str(finding) for group in found.findings for finding in group.examples]
            found.require_trainable("skip")
    except DataError as error:
        said = str(error).splitlines() if "\n" in str(error) and "cannot be trained on" in str(error) else [str(error)]
    except BaseException:
        return traceback.format_exc()
    finally:
        path.unlink()
    wrong = [each for each in said if "\n" in each or len(each.encode()) > 3000]
    return f"no sentence: {wrong[0][:5000]!r}" if wrong else None


@contextmanager
def deadline() -> Iterator[None]:
    """Raise `TimeoutError` in what takes too long."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"more than {DEADLINE_SECONDS} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(DEADLINE_SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def main() -> int:
    """Survey files from a number on; print what went wrong, and leave with 1 if anything did."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--count", type=int, default=sys.maxsize)
    parser.add_argument("--seconds", type=float, default=float("inf"))
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    ends, number, wrong = time.monotonic() + asked.seconds, asked.first, dict[str, int]()
    with tempfile.TemporaryDirectory() as folder:
        while number < asked.first + asked.count and time.monotonic() < ends:
            sys.stderr.write(f"\r{number}")  # the last one, should the process end
            if (found := problem(number, Path(folder))) and wrong.setdefault(found.splitlines()[-1], number) == number:
                sys.stdout.write(f"file {number}: {found}\n")
            number += 1
    sys.stdout.write(json.dumps({"files": number - asked.first, "problems": wrong}) + "\n")
    return bool(wrong)


if __name__ == "__main__":
    sys.exit(main())
