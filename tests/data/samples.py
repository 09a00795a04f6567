"""Pairs in every shape and every container that can hold them, and what reading a file brings to light."""

import csv
import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings

from runner.data.kinds.preference import Pair
from runner.data.rows import Message, Row
from runner.data.splits import Selection, read_rows
from runner.data.survey import Survey, survey

Raw = dict[str, Any]
unhurried = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
"""For property tests that write files: each example writes its own, and a busy machine may be slow."""


def user(text: str) -> Message:
    return Message("user", text)


def assistant(text: str) -> Message:
    return Message("assistant", text)


def simple_pair(number: int) -> Pair:
    """Return a pair of one question; every number gives another one."""
    question, good, bad = f"How old is oak {number}?", f"Count its {number} rings.", f"Hard to say, {number}?"
    return Pair((user(question),), (assistant(good),), (assistant(bad),))


def plain(turns: Sequence[Message]) -> list[Raw]:
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def foundry(pair: Pair) -> Raw:
    answers = {"preferred_output": plain(pair.chosen), "non_preferred_output": plain(pair.rejected)}
    return {"input": {"messages": plain(pair.prompt)}, **answers}


def trl(pair: Pair) -> Raw:
    return {"prompt": plain(pair.prompt), "chosen": plain(pair.chosen), "rejected": plain(pair.rejected)}


def trl_implicit(pair: Pair) -> Raw:
    return {"chosen": plain(pair.prompt + pair.chosen), "rejected": plain(pair.prompt + pair.rejected)}


def sharegpt_preference(pair: Pair) -> Raw:
    speakers = {"user": "human", "assistant": "gpt", "system": "system"}
    prompt, chosen, rejected = (
        [{"from": speakers[turn.role], "value": turn.content} for turn in turns]
        for turns in (pair.prompt, pair.chosen, pair.rejected)
    )
    return {"conversations": prompt, "chosen": chosen[0], "rejected": rejected[0]}


def hh_rlhf(pair: Pair) -> Raw:
    speakers = {"user": "Human", "assistant": "Assistant"}
    chosen, rejected = (
        "".join(f"\n\n{speakers[turn.role]}: {turn.content}" for turn in pair.prompt + answer)
        for answer in (pair.chosen, pair.rejected)
    )
    return {"chosen": chosen, "rejected": rejected}


def alpaca_preference(pair: Pair) -> Raw:
    texts = [turn.content for turn in pair.prompt]
    row: Raw = {"instruction": texts[-1], "chosen": pair.chosen[0].content, "rejected": pair.rejected[0].content}
    if len(texts) > 1:
        row["history"] = [list(each) for each in zip(texts[:-1:2], texts[1:-1:2], strict=True)]
    return row


def trl_text(pair: Pair) -> Raw:
    """Return TRL's row of texts; the prompt must be one turn."""
    [question] = pair.prompt
    return {"prompt": question.content, "chosen": pair.chosen[0].content, "rejected": pair.rejected[0].content}


SHAPES: dict[str, Callable[[Pair], Raw]] = {
    each.__name__: each for each in (foundry, trl, trl_implicit, sharegpt_preference, hh_rlhf, alpaca_preference)
}
TEXT_SHAPES: dict[str, Callable[[Pair], Raw]] = {
    "trl": trl_text,
    "hh_rlhf": hh_rlhf,
    "alpaca_preference": alpaca_preference,
}
"""The shapes of pairs of one question that hold texts only, so that CSV can hold them."""


def write_lines(path: Path, rows: Sequence[Raw]) -> None:
    path.write_bytes("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode())


def write_array(path: Path, rows: Sequence[Raw]) -> None:
    path.write_bytes(json.dumps(rows, ensure_ascii=False, indent=2).encode())


def write_csv(path: Path, rows: Sequence[Raw]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        table = csv.DictWriter(stream, list(rows[0]))
        table.writeheader()
        table.writerows(rows)


def write_parquet(path: Path, rows: Sequence[Raw]) -> None:
    from pyarrow import Table
    from pyarrow.parquet import write_table

    names = dict.fromkeys(name for row in rows for name in row)
    write_table(Table.from_pydict({name: [row.get(name) for row in rows] for name in names}), path)


def write_gzip(path: Path, rows: Sequence[Raw]) -> None:
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()))


CONTAINERS: dict[str, Callable[[Path, Sequence[Raw]], None]] = {
    "jsonl": write_lines,
    "jsonl.gz": write_gzip,
    "json": write_array,
    "parquet": write_parquet,
}


def selection(path: Path, kind: str = "preference", **keys: Any) -> Selection:
    return Selection(train=str(path), kind=kind, **keys)


def look(path: Path, kind: str = "preference", **keys: Any) -> Survey:
    return survey(selection(path, kind, **keys))


def rows_of(path: Path, kind: str = "preference", **keys: Any) -> list[Row]:
    return list(read_rows(selection(path, kind, **keys), "train"))


def reported(found: Survey, folder: Path) -> list[str]:
    """Return what was found, each with its severity, rule and place, without the folder."""
    return [
        f"{group.severity} {group.rule} {str(finding).replace(f'{folder}/', '')}"
        for group in found.findings
        for finding in group.examples
    ]
