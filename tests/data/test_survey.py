"""The survey counts, fingerprints and compares rows; what is refused stops the run or is left out, as asked."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.kinds.preference import Pair
from runner.data.rows import Message, Row, canonical, row_id
from runner.data.splits import Selection
from runner.data.survey import Progress, TokenLimit, survey
from runner.errors import DataError
from tests.data.samples import (
    CONTAINERS,
    Raw,
    assistant,
    look,
    reported,
    selection,
    simple_pair,
    trl,
    trl_text,
    unhurried,
    user,
    write_csv,
    write_lines,
)

BAD = {"prompt": "Why?", "chosen": "", "rejected": "No."}


def write(path: Path, *rows: Raw | int) -> Path:
    """Write rows, of which a number stands for the pair with that number."""
    write_lines(path, [trl(simple_pair(row)) if isinstance(row, int) else row for row in rows])
    return path


def test_a_split_is_summed_up(tmp_path: Path) -> None:
    system = Message("system", "Be brief.")
    long = Pair((system, user("Why?"), assistant("Gas."), user("So?")), (assistant("1234"),), (assistant("123456"),))
    path = write(tmp_path / "data.jsonl", trl(long), {"prompt": "How?", "chosen": "1", "rejected": "12"})
    split = look(path).splits["train"]
    assert split.rows == 2
    assert split.turns == (2, 3, 5)
    assert split.answer_characters == (1, 2, 4)


def test_the_fingerprint_is_what_sha256sum_says_of_the_canonical_lines(tmp_path: Path) -> None:
    rows = [simple_pair(number) for number in range(3)]
    split = look(write(tmp_path / "data.jsonl", *range(3))).splits["train"]
    lines = b"".join(canonical(row) + b"\n" for row in rows)
    assert (split.fingerprint, split.bytes) == (sha256(lines).hexdigest(), len(lines))


def test_a_rows_identity_is_the_hash_of_its_canonical_line() -> None:
    line = '{"prompt":[{"role":"user","content":"é"}],"chosen":[{"role":"assistant","content":"A"}],"rejected":[]}'
    row = Pair((user("é"),), (assistant("A"),), ())
    assert canonical(row) == line.encode()
    assert row_id(row) == sha256(line.encode()).digest()


def test_the_order_of_rows_changes_the_fingerprint(tmp_path: Path) -> None:
    one, other = (look(write(tmp_path / "data.jsonl", *rows)).splits["train"] for rows in ([1, 2], [2, 1]))
    assert one.fingerprint != other.fingerprint
    assert one.bytes == other.bytes


def test_a_repeated_row_is_reported_with_the_place_of_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", 1, 2, 1)
    [message] = reported(look(path), tmp_path)
    assert message == (
        "warning duplicate-row data.jsonl:3: the row is the same as at data.jsonl:1; it counts twice: "
        "remove one of them"
    )


def test_a_repeated_prompt_is_noted(tmp_path: Path) -> None:
    again = trl(simple_pair(1)) | {"chosen": [{"role": "assistant", "content": "Ask it."}]}
    path = write(tmp_path / "data.jsonl", 1, again)
    assert reported(look(path), tmp_path) == [
        "note repeated-prompt data.jsonl:2: the prompt is the same as at data.jsonl:1, with another answer or judgement"
        "; this is fine if it is meant"
    ]


def test_that_both_answers_of_a_split_pair_have_one_prompt_is_not_noted(tmp_path: Path) -> None:
    assert reported(look(write(tmp_path / "data.jsonl", 1, 2), "judged"), tmp_path) == []


def test_rows_are_compared_over_files_and_shapes(tmp_path: Path) -> None:
    flat = {"prompt": "How old is oak 2?", "chosen": "Count its 2 rings.", "rejected": "Hard to say, 2?"}
    files = [write(tmp_path / "a.jsonl", 1, 2), write(tmp_path / "b.jsonl", 3, flat)]
    found = survey(Selection(train=[str(each) for each in files], kind="preference"))
    assert [each.split(";")[0] for each in reported(found, tmp_path)] == [
        "warning duplicate-row b.jsonl:2: the row is the same as at a.jsonl:2"
    ]


def test_held_out_rows_and_prompts_that_are_trained_on_are_reported(tmp_path: Path) -> None:
    again = trl(simple_pair(2)) | {"chosen": [{"role": "assistant", "content": "Ask it."}]}
    train, held = write(tmp_path / "train.jsonl", 1, 2), write(tmp_path / "held.jsonl", 3, 1, again)
    found = survey(selection(train, validation=str(held)))
    assert reported(found, tmp_path) == [
        "warning shared-row held.jsonl:2: the row is trained on too, at train.jsonl:1; held-out rows must be new: "
        "remove one of them",
        "warning shared-prompt held.jsonl:3: the prompt is trained on too, at train.jsonl:2; held-out rows must be "
        "new: remove one of them",
    ]


def test_rows_with_tools_are_compared_with_them(tmp_path: Path) -> None:
    add, sub = ([{"type": "function", "function": {"name": name}}] for name in ("add", "sub"))
    row = trl(simple_pair(1))
    path = write(tmp_path / "data.jsonl", row | {"tools": add}, row | {"tools": sub}, row | {"tools": add})
    assert [each.split(":")[1] for each in reported(look(path), tmp_path) if "duplicate-row" in each] == ["3"]


def test_rows_that_declare_call_or_answer_tools_are_counted(tmp_path: Path) -> None:
    plain = trl(simple_pair(1))
    call = {"id": "1", "type": "function", "function": {"name": "now", "arguments": "{}"}}
    called = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "Noon."}]
    rows = [
        plain,
        plain | {"tools": [{"type": "function", "function": {"name": "now"}}]},
        plain | {"prompt": [{"role": "user", "content": "When?"}, *called]},
        plain | {"prompt": [{"role": "user", "content": 'What does "tool_calls" mean?'}]},
        plain | {"prompt": [{"role": "user", "content": "tool_calls"}]},
    ]
    assert look(write(tmp_path / "data.jsonl", *rows)).splits["train"].with_tools == 2


@pytest.mark.parametrize(("labels", "missing"), [([True, True], "bad"), ([False], "good"), ([True, False], "")])
def test_answers_that_are_all_judged_alike_are_reported(labels: list[bool], missing: str, tmp_path: Path) -> None:
    rows = [{"prompt": f"Why is bread {at}?", "completion": "Air.", "label": label} for at, label in enumerate(labels)]
    found = reported(look(write(tmp_path / "data.jsonl", *rows), "judged"), tmp_path)
    assert found == [
        f"warning one-sided data.jsonl: no answer is judged {missing}; the method learns from the difference of good "
        "and bad ones; check the judgements, or add such answers"
    ] * bool(missing)


def test_five_places_of_a_rule_are_kept_and_all_are_counted(tmp_path: Path) -> None:
    [group] = look(write(tmp_path / "data.jsonl", *[1] * 9)).findings
    assert group.count == 8
    assert [each.line for each in group.examples] == [2, 3, 4, 5, 6]


def test_errors_are_reported_first(tmp_path: Path) -> None:
    found = look(write(tmp_path / "data.jsonl", 1, 1, BAD))
    assert [group.severity for group in found.findings] == ["error", "warning"]
    assert [error.line for error in found.errors] == [3]


def test_only_rows_with_more_bytes_than_tokens_are_allowed_are_counted(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", 1, trl(simple_pair(2)) | {"prompt": "x" * 300})
    counted: list[Row] = []

    def count(rows: Sequence[Row]) -> list[int]:
        counted.extend(rows)
        return [1301] * len(rows)

    found = survey(selection(path), TokenLimit(300, count))
    assert len(counted) == 1
    assert reported(found, tmp_path) == [
        "warning too-long data.jsonl:2: the row has 1,301 tokens; 300 are allowed; it will be truncated"
    ]


def test_a_row_of_as_many_tokens_as_allowed_is_not_too_long(tmp_path: Path) -> None:
    assert survey(selection(write(tmp_path / "data.jsonl", 1)), TokenLimit(10, lambda rows: [10])).findings == ()


def test_a_row_that_was_counted_only_until_it_was_over_the_limit_has_more_tokens_than_it(tmp_path: Path) -> None:
    found = survey(selection(write(tmp_path / "data.jsonl", 1)), TokenLimit(10, lambda rows: [11]))
    assert reported(found, tmp_path) == [
        "warning too-long data.jsonl:1: the row has more than 10 tokens; 10 are allowed; it will be truncated"
    ]


def test_the_long_rows_of_a_block_are_counted_together(tmp_path: Path) -> None:
    path, sizes = write(tmp_path / "data.jsonl", *range(100)), list[int]()

    def count(rows: Sequence[Row]) -> list[int]:
        sizes.append(len(rows))
        return [0] * len(rows)

    survey(selection(path), TokenLimit(10, count))
    assert sizes == [100]


def progress_of(chosen: Selection) -> list[Progress]:
    progress: list[Progress] = []
    survey(chosen, report=progress.append)
    return progress


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz", "data.json", "data.parquet", "data.csv"])
def test_progress_grows_to_the_whole_whatever_the_container(tmp_path: Path, name: str) -> None:
    rows = [trl_text(simple_pair(number)) for number in range(12_000)]
    write = {**CONTAINERS, "csv": write_csv}[name.partition(".")[2]]
    write(tmp_path / name, rows)
    progress = progress_of(Selection(train=str(tmp_path / name), kind="preference"))
    assert len(progress) > 1
    assert progress == sorted(progress)
    assert progress[0].share < 1
    assert progress[-1] == (1.0, 12_000)


def test_progress_counts_all_files_and_ends_where_max_rows_ends(tmp_path: Path) -> None:
    train, held = write(tmp_path / "train.jsonl", *range(10)), write(tmp_path / "held.jsonl", *range(10, 20))
    both = progress_of(selection(train, validation=str(held)))
    assert [round(each.share, 1) for each in both] == [0.5, 1.0]
    assert progress_of(selection(train, max_rows=2))[-1] == (1.0, 2)


def test_a_bad_row_stops_the_run(tmp_path: Path) -> None:
    found = look(write(tmp_path / "data.jsonl", 1, BAD, 2))
    with pytest.raises(DataError) as caught:
        found.require_trainable("stop")
    assert str(caught.value).replace(f"{tmp_path}/", "") == (
        "data.jsonl:2: the chosen answer is empty; it needs text; write it or remove the row; 1 of 3 rows cannot be "
        "trained on: fix them, or leave them out with dataset.on_bad_row=skip."
    )


def test_a_bad_row_is_left_out_if_that_is_asked(tmp_path: Path) -> None:
    found = look(write(tmp_path / "data.jsonl", 1, BAD, 2))
    found.require_trainable("skip")
    whole = look(write(tmp_path / "data.jsonl", 1, 2))
    assert found.splits == whole.splits


def test_bad_rows_only_cannot_be_left_out(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"1 of 1 rows cannot be trained on and none is left for train; fix them\.$"):
        look(write(tmp_path / "data.jsonl", BAD)).require_trainable("skip")


def test_a_split_without_rows_is_refused(tmp_path: Path) -> None:
    found = look(write(tmp_path / "data.jsonl", 1), validation_fraction=1e-9)
    with pytest.raises(DataError) as caught:
        found.require_trainable("stop")
    assert str(caught.value) == (
        "dataset.validation_fraction: no row falls to validation; at least one is needed; change the fraction, "
        "give dataset.validation or more rows."
    )


def test_good_rows_are_trainable(tmp_path: Path) -> None:
    look(write(tmp_path / "data.jsonl", 1, 2)).require_trainable("stop")


@unhurried
@given(st.lists(st.sampled_from(["good", "bad", "broken", "blank", "odd"]), min_size=1, max_size=30))
def test_every_finding_has_the_line_of_its_row(tmp_path: Path, sorts: list[str]) -> None:
    def line(number: int, sort: str) -> str:
        row: dict[str, Any] = {"prompt": f"Why {number}?", "chosen": "Gas.", "rejected": "No."}
        match sort:
            case "bad":
                row["chosen"] = ""
            case "odd":
                row["rejected"] = "\u00a0"[: number % 1] + "N\u200b"
            case "broken":
                return json.dumps(row)[:-5]
            case "blank":
                return ""
        return json.dumps(row)

    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(line(number, sort) for number, sort in enumerate(sorts, 1)) + "\n", "utf-8")
    found = look(path, format="trl") if set(sorts) != {"blank"} else None
    rules = {"bad": "empty-answer", "broken": "not-json", "odd": "zero-width-space"}
    for sort, rule in rules.items():
        expected = [number for number, each in enumerate(sorts, 1) if each == sort]
        groups = [group for group in found.findings if group.rule == rule] if found else []
        assert [each.line for group in groups for each in group.examples] == expected[:5]
        assert sum(group.count for group in groups) == len(expected)


def test_all_rows_whose_prompt_alone_fills_the_limit_are_named_at_once(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", *range(9))
    limit = TokenLimit(10, lambda rows: [11] * len(rows), lambda rows: [9] + [10] * 8, "backend.max_length")
    with pytest.raises(DataError, match=r"data\.jsonl:2, .*data\.jsonl:6 and 3 more so far: the prompt alone fills"):
        survey(selection(path), limit)


def test_a_row_whose_prompt_alone_fills_the_limit_is_refused_by_file_and_line(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", *range(3))
    limit = TokenLimit(10, lambda rows: [11] * len(rows), lambda rows: [9, 10, 3], "backend.max_length")
    with pytest.raises(DataError, match=r"data\.jsonl:2: the prompt alone fills backend\.max_length=10 tokens"):
        survey(selection(path), limit)
