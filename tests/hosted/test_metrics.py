"""The service's numbers under our names: every shape in which a results file or an event may bring them."""

import base64
import csv
import io
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.hosted import metrics
from tests.data.samples import unhurried

SFT = b"""\
step,train_loss,train_accuracy,valid_loss,valid_mean_token_accuracy,full_valid_loss,full_valid_mean_token_accuracy
1,3.9196,0.375,,,,
2,2.7183,0.5625,2.9313,0.51,,
3,1.4142,0.75,,,1.6021,0.703
"""
DPO = b"""\
step,train_loss,train_accuracy,train_reward_chosen,train_reward_rejected,train_reward_margin,full_valid_loss
10,0.6931,0.5,0,0,0,-1
20,0.4713,0.875,0.3101,-1.0,1.3101,0.5289
"""
RFT = b"""\
step,train_mean_reward,valid_mean_reward,full_valid_mean_reward,reasoning_tokens_mean,train_format_errors
1,0.25,,,812.5,0.03
2,-0.5,-1.0,0.31,790,0
"""


def table(content: bytes, method: str) -> dict[int | None, dict[str, float]]:
    """Return what a results file measured, by step."""
    return {metrics.step_of(row): metrics.metrics(row, method) for row in metrics.rows(content)}


def test_a_supervised_jobs_columns_have_our_names_where_they_mean_the_same() -> None:
    assert table(SFT, "sft") == {
        1: {
            "hosted/train_loss": 3.9196,
            "train/loss": 3.9196,
            "hosted/train_accuracy": 0.375,
            "train/token_accuracy": 0.375,
        },
        2: {
            "hosted/train_loss": 2.7183,
            "train/loss": 2.7183,
            "hosted/train_accuracy": 0.5625,
            "train/token_accuracy": 0.5625,
            "hosted/valid_loss": 2.9313,
            "hosted/valid_mean_token_accuracy": 0.51,
        },
        3: {
            "hosted/train_loss": 1.4142,
            "train/loss": 1.4142,
            "hosted/train_accuracy": 0.75,
            "train/token_accuracy": 0.75,
            "hosted/full_valid_loss": 1.6021,
            "eval/loss": 1.6021,
            "hosted/full_valid_mean_token_accuracy": 0.703,
            "eval/token_accuracy": 0.703,
        },
    }


def test_a_preference_jobs_rewards_have_our_names() -> None:
    found = table(DPO, "dpo")
    assert found[20] == {
        "hosted/train_loss": 0.4713,
        "train/loss": 0.4713,
        "hosted/train_accuracy": 0.875,
        "train/reward_accuracy": 0.875,
        "hosted/train_reward_chosen": 0.3101,
        "train/reward_chosen": 0.3101,
        "hosted/train_reward_rejected": -1.0,
        "train/reward_rejected": -1.0,
        "hosted/train_reward_margin": 1.3101,
        "train/reward_margin": 1.3101,
        "hosted/full_valid_loss": 0.5289,
        "eval/loss": 0.5289,
    }
    assert found[10]["train/reward_margin"] == 0.0
    assert "eval/loss" not in found[10]


@pytest.mark.parametrize("column", ["rewards_chosen", "rewards_rejected", "rewards_margins", "rewards_accuracies"])
def test_both_spellings_of_rewards_mean_the_same(column: str) -> None:
    ours = column.replace("rewards_", "reward_").replace("margins", "margin").replace("accuracies", "accuracy")
    assert metrics.metrics({f"full_valid_{column}": 0.5}, "dpo")[f"eval/{ours}"] == 0.5


def test_the_columns_of_a_method_that_is_not_known_here_are_kept_under_the_services_names() -> None:
    assert table(RFT, "ppo") == {
        1: {
            "hosted/train_mean_reward": 0.25,
            "hosted/reasoning_tokens_mean": 812.5,
            "hosted/train_format_errors": 0.03,
        },
        2: {
            "hosted/train_mean_reward": -0.5,
            "hosted/valid_mean_reward": -1.0,
            "hosted/full_valid_mean_reward": 0.31,
            "hosted/reasoning_tokens_mean": 790.0,
            "hosted/train_format_errors": 0.0,
        },
    }


REINFORCED: dict[str, Any] = {
    "step": 10,
    "total_steps": 20,
    "train_mean_reward": 0.5,
    "full_valid_mean_reward": 0.4,
    "full_valid_mean_parse_error": 0.125,
    "mean_unresponsive_rewards": 0.0,
    "reasoning_tokens_mean": 812.5,
    "valid_reasoning_tokens_mean": 790.0,
    "completion_tokens_mean": 40,
    "scores": {
        "train_reward_mean": 0.5,
        "valid_reward_mean": 0.4,
        "graders": [
            {"name": "right", "type": "string_check", "train_reward_mean": 0.25, "valid_reward_mean": -0.007},
            {"name": "how short?", "type": "python", "train_reward_mean": 1, "valid_reward_mean": -1},
        ],
    },
    "errors": {"graders": [{"name": "right", "train_invalid_variable_error_mean": 0.5, "train_other_error_count": 3}]},
    "timing": {"step": {"full_iteration": 91.5}, "graders": [{"execution_latency_mean": 0.1}]},
    "usage": {"samples": {"train": [1, 2], "note": "text"}},
}
"""A metric event of a reinforcement job: its data are nested."""


def test_a_reinforcement_jobs_nested_data_are_flat_and_have_our_names_where_they_mean_the_same() -> None:
    assert metrics.metrics(REINFORCED, "rft") == {
        "train/reward": 0.5,
        "eval/reward": 0.4,
        "eval/parse_errors": 0.125,
        "train/reasoning_tokens": 812.5,
        "eval/reasoning_tokens": 790.0,
        "train/answer_tokens": 40.0,
        "train/reward_right": 0.25,
        "eval/reward_right": -0.007,
        "hosted/train_mean_reward": 0.5,
        "hosted/full_valid_mean_reward": 0.4,
        "hosted/full_valid_mean_parse_error": 0.125,
        "hosted/mean_unresponsive_rewards": 0.0,
        "hosted/reasoning_tokens_mean": 812.5,
        "hosted/valid_reasoning_tokens_mean": 790.0,
        "hosted/completion_tokens_mean": 40.0,
        "hosted/scores/train_reward_mean": 0.5,
        "hosted/scores/valid_reward_mean": 0.4,
        "hosted/scores/graders/right/train_reward_mean": 0.25,
        "hosted/scores/graders/right/valid_reward_mean": -0.007,
        "hosted/scores/graders/how short_/train_reward_mean": 1.0,
        "hosted/errors/graders/right/train_invalid_variable_error_mean": 0.5,
        "hosted/errors/graders/right/train_other_error_count": 3.0,
        "hosted/timing/step/full_iteration": 91.5,
        "hosted/timing/graders/0/execution_latency_mean": 0.1,
    }


@pytest.mark.parametrize(
    ("column", "ours"),
    [("train_reward_mean", "train/reward"), ("valid_reward_mean", "eval/reward"),
     ("scores/graders/right/valid_reward_mean", "eval/reward_right")],
)  # fmt: skip
def test_a_reward_has_our_name_as_the_documentation_and_a_results_file_write_it(column: str, ours: str) -> None:
    assert metrics.metrics({column: "0.25"}, "rft")[ours] == 0.25


def test_of_two_columns_with_one_meaning_that_of_all_held_out_rows_counts() -> None:
    for data in ({"valid_reward_mean": 0.1, "full_valid_mean_reward": 0.4},
                 {"full_valid_mean_reward": 0.4, "valid_reward_mean": 0.1}):  # fmt: skip
        assert metrics.metrics(data, "rft")["eval/reward"] == 0.4


def test_the_loss_on_one_batch_of_held_out_rows_is_none_of_ours() -> None:
    assert metrics.metrics({"valid_loss": 0.5}, "dpo") == {"hosted/valid_loss": 0.5}


# A cell, and what it is worth in a column that may be negative and in one that may not.
CELLS: list[tuple[Any, float | None, float | None]] = [
    ("", None, None),
    ("  ", None, None),
    (None, None, None),
    ("-1", None, None),
    (-1, None, None),
    ("-1.0", -1.0, None),
    (-1.0, -1.0, None),
    ("-1.5", -1.5, -1.5),
    ("0", 0.0, 0.0),
    (0, 0.0, 0.0),
    (" 0.25 ", 0.25, 0.25),
    ("1e-3", 0.001, 0.001),
    ("nan", None, None),
    ("NaN", None, None),
    (math.nan, None, None),
    ("inf", None, None),
    (-math.inf, None, None),
    ("1e999", None, None),
    ("n/a", None, None),
    ("0,5", None, None),
    (True, None, None),
    (False, None, None),
    ([0.5], None, None),
    ({"mean": 0.5}, None, None),
]


@pytest.mark.parametrize(("raw", "reward", "loss"), CELLS, ids=repr)
def test_a_cell_is_a_finite_number_or_was_not_measured(raw: Any, reward: float | None, loss: float | None) -> None:
    assert metrics.metrics({"train_reward_margin": raw}, "rft").get("hosted/train_reward_margin") == reward
    assert metrics.metrics({"train_loss": raw}, "rft").get("hosted/train_loss") == loss


@pytest.mark.parametrize(
    ("raw", "step"),
    [("7", 7), (7, 7), (7.0, 7), ("7.0", 7), (" 7", 7), (0, 0), ("", None), (None, None), ("-1", None), (-1, None),
     ("-1.0", None), ("nan", None), ("seven", None), (True, None)],
)  # fmt: skip
def test_a_step_is_a_whole_number_from_zero(raw: Any, step: int | None) -> None:
    assert metrics.step_of({"step": raw}) == step
    assert metrics.metrics({"step": raw}, "dpo") == {}


def test_numbers_without_a_step_name_none() -> None:
    assert metrics.step_of({"train_loss": 0.5}) is None


def variants(content: bytes) -> dict[str, bytes]:
    """Return the same table as services have been seen to send it."""
    encoded = base64.b64encode(content)
    lines = b"\n".join(encoded[start : start + 76] for start in range(0, len(encoded), 76))
    return {
        "with a BOM": b"\xef\xbb\xbf" + content,
        "with CRLF": content.replace(b"\n", b"\r\n"),
        "with spaces in its head": content.replace(b",", b", ", content.splitlines()[0].count(b",")),
        "without an end of its last line": content.rstrip(b"\n"),
        "with empty lines": content.replace(b"\n", b"\n\n"),
        "base64": encoded,
        "base64 in lines": lines + b"\n",
        "base64 with a BOM inside": base64.b64encode(b"\xef\xbb\xbf" + content),
    }


@pytest.mark.parametrize("variant", variants(SFT))
@pytest.mark.parametrize(("content", "method"), [(SFT, "sft"), (DPO, "dpo"), (RFT, "rft")], ids=["sft", "dpo", "rft"])
def test_a_table_is_the_same_however_it_is_sent(content: bytes, method: str, variant: str) -> None:
    assert table(variants(content)[variant], method) == table(content, method)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b" \r\n ", b"step,train_loss\n", b"\xef\xbb\xbf", b"<html><body>Sign in</body></html>",
     b'{"error": {"code": "NotFound"}}', b"\x89PNG\x00\x01\x02\xff", b"c3RlcA==", b"step"],
)  # fmt: skip
def test_a_file_without_numbers_measures_nothing(content: bytes) -> None:
    assert [row for row in metrics.rows(content) if metrics.step_of(row) is not None] == []


def test_a_row_that_is_too_short_or_too_long_loses_only_what_has_no_name() -> None:
    assert table(b"step,train_loss\n1\n2,0.5,0.7\n", "rft") == {1: {}, 2: {"hosted/train_loss": 0.5}}


@pytest.mark.parametrize(
    "content",
    [b"step,train_loss\r1,0.5\r2,0.4\r", b"step,train_loss\n1,0.5\rx\n", b'step,"' + b"a" * 200_000],
    ids=["CR line ends", "a stray CR", "a field without end"],
)
def test_a_file_that_is_hardly_a_table_is_no_error(content: bytes) -> None:
    list(metrics.rows(content))


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_too_large_to_be_one_was_not_measured(digits: int) -> None:
    assert metrics.metrics({"train_loss": 10**digits}, "dpo") == {}


NAMES = st.text(st.characters(codec="ascii", categories=["Ll", "Nd"], include_characters="_"), min_size=1, max_size=12)
COLUMNS = NAMES.filter(lambda name: name not in metrics.COUNTS and not metrics.NEVER_NEGATIVE.search(name))
FINITE = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def tables(draw: st.DrawFn) -> tuple[list[str], dict[int, list[float | None]]]:
    """Columns, and by step a cell for each; None is an empty one."""
    columns = draw(st.lists(COLUMNS, min_size=1, max_size=5, unique=True))
    cells = st.lists(st.none() | FINITE, min_size=len(columns), max_size=len(columns))
    return columns, draw(st.dictionaries(st.integers(0, 10**6), cells, max_size=6))


def encoded(columns: list[str], rows: dict[int, list[float | None]]) -> bytes:
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *columns])
    writer.writerows([step, *cells] for step, cells in rows.items())
    return text.getvalue().encode()


@unhurried
@given(tables())
def test_every_finite_number_survives(made: tuple[list[str], dict[int, list[float | None]]]) -> None:
    columns, rows = made
    expected = {
        step: {f"hosted/{name}": cell for name, cell in zip(columns, cells, strict=True) if cell is not None}
        for step, cells in rows.items()
    }
    assert table(encoded(columns, rows), "rft") == expected


@unhurried
@given(tables())
def test_base64_of_a_table_is_the_table(made: tuple[list[str], dict[int, list[float | None]]]) -> None:
    content = encoded(*made)
    assert list(metrics.rows(base64.b64encode(content))) == list(metrics.rows(content))


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=2)
)


@unhurried
@given(st.dictionaries(st.sampled_from(["step", "train_loss", "train_reward_chosen"]) | st.text(), JSON))
def test_whatever_an_event_holds_only_finite_numbers_come_out(data: dict[str, Any]) -> None:
    for method in ("sft", "dpo", "rft"):
        assert all(math.isfinite(value) for value in metrics.metrics(data, method).values())
    assert (metrics.step_of(data) or 0) >= 0


@unhurried
@given(st.binary(max_size=200).filter(lambda content: b"\r" not in content))
def test_no_bytes_make_it_fail(content: bytes) -> None:
    for row in metrics.rows(content):
        metrics.metrics(row, "dpo")
