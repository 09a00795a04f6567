"""Why a line is not a row of its format, in a user's words: what was found, what is allowed, and the fix."""

import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from typing import get_args

import msgspec

from runner.data.containers import NoRow
from runner.data.formats import Format
from runner.data.quoting import shown
from runner.data.reading.unknown_keys import Unread
from runner.data.rows import BadRow, Role

_WORDS = {
    "str": "text",
    "int": "an integer",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
    "array": "a list",
    "object": "an object",
}


def explain(error: ValueError | RecursionError, line: bytes, format: Format, unread: Sequence[Unread] = ()) -> BadRow:
    """Return the reason why decoding a line as a row of a format failed; `unread` are keys that it also has."""
    match error:
        # A conversation that ends with the user's turn, with further keys: the form in which services take data
        # for graders.
        case BadRow(rule="last-turn") if keys := [shown(each.key) for each in unread if not each.place]:
            names = ", ".join(f"`{key}`" for key in keys)
            return BadRow(
                "last-turn",
                f"{error}; if a grader compares answers with {names}, this is data for reinforcement fine-tuning: use "
                "method=rft",
            )
        case BadRow():
            return error
        case msgspec.ValidationError():
            # msgspec has no fields for these (jcrist/msgspec): its messages are taken apart; tests/data pins them.
            found, _, place = str(error).partition(" - at `$")
            return _wrong_value(found, place.rstrip("`").lstrip("."), line, format)
    return not_json(error, line)


def not_json(error: ValueError | RecursionError, line: bytes) -> BadRow:
    """Return the reason why a line is not JSON; the mistakes that programs make are named."""
    if isinstance(line, NoRow):
        return BadRow("no-row", line.decode())
    if isinstance(error, UnicodeDecodeError):
        byte = error.object[error.start]
        return BadRow("not-utf8", f"byte 0x{byte:02x} is not UTF-8, as text must be; save it as UTF-8")
    if isinstance(error, RecursionError):
        return BadRow("not-json", "lists or objects are nested too deeply to be read; a row is flatter; repair it")
    # Python's json writes them by default, and so does pandas.
    if re.search(rb"[:\[,]\s*(?:NaN|-?Infinity)\b", line):
        return BadRow("not-json", "a number is NaN or Infinity, which JSON does not allow; write null")
    # A lone half is valid by the JSON grammar, and no Unicode text (RFC 8259, section 8.2).
    if re.search(rb"\\u[dD][89a-fA-F]", line) and _is_json(line):
        return BadRow("not-json", "half a surrogate pair (\\ud800 to \\udfff) is not a character; remove it")
    # How an array's rows are found (containers/array.py) leaves a comma without a row by itself.
    if line.strip() == b",":
        return BadRow("not-json", "a comma is here, but no row follows it; remove the comma")
    if line.rstrip().endswith(b",") and _is_json(line.rstrip()[:-1]):
        return BadRow(
            "not-json", "a comma follows the object; in JSON Lines a row ends with its line; remove the comma"
        )
    if str(error).endswith("truncated"):
        return BadRow("not-json", "the JSON ends too early; a row is one whole object on one line; complete it")
    reason = str(error).removeprefix("JSON is malformed: ")
    return BadRow("not-json", f"not JSON ({reason}); a row is one whole object on one line; repair it")


def _is_json(line: bytes) -> bool:
    """Say whether a laxer reader takes the line, one that allows half surrogate pairs."""
    try:
        json.loads(line)
    except ValueError:
        return False
    return True


def _wrong_value(found: str, place: str, line: bytes, format: Format) -> BadRow:
    where = f"`{place}`" if place else "the row"
    if missing := re.fullmatch(r"Object missing required field `(.*)`", found):
        return _missing_key(missing[1], where, line, format)
    if types := re.fullmatch(r"Expected `(.*)`, got `(.*)`", found):
        allowed, got = (" or ".join(_WORDS.get(name, name) for name in each.split(" | ")) for each in types.groups())
        return BadRow("wrong-type", f"{where} is {got}; allowed: {allowed}; change it")
    if value := re.fullmatch(r"Invalid enum value (.*)", found):
        allowed = ", ".join(get_args(Role)) if place.endswith("role") else "0, 1"
        rule = "unknown-role" if place.endswith("role") else "wrong-value"
        return BadRow(rule, f"{where} is {shown(value[1])}; allowed: {allowed}; change it")
    return BadRow("wrong-type", f"{where}: {shown(found, 200)}; change it")


def _missing_key(key: str, where: str, line: bytes, format: Format) -> BadRow:
    """Name the key, and one of the row's own that it may have been meant by."""
    if where != "the row":
        return BadRow("missing-key", f"{where} has no `{key}`, which it needs; add it")
    present = msgspec.json.decode(line)
    close = get_close_matches(key, present, 1)
    # Not a key that the format needs itself: that one is in its place.
    fix = f"rename `{shown(close[0])}`" if close and close[0] not in format.keys else "add it"
    needs = ", ".join(format.keys)
    return BadRow("missing-key", f"the row has no `{key}`; a row of format {format.name} needs {needs}; {fix}")
