"""A mixture has the shares that its weights say, of rows that neither their order nor that of the sources decides."""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data import mixture
from runner.data.checking.processes import Pool, Processes
from runner.data.containers import lines
from runner.data.rows import row_id
from runner.data.splits import Selection, read_rows, read_with_source
from runner.data.survey import survey
from runner.training.evaluation import mean
from runner.training.schedule import batch
from tests.data.samples import simple_pair, trl, write_lines

ROWS = {"chat": range(400), "code": range(1000, 1200), "math": range(2000, 2300)}
WEIGHTS = {"chat": 60, "code": 30, "math": 10}
BATCH = 16


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    for name, numbers in ROWS.items():
        write_lines(tmp_path / f"{name}.jsonl", [trl(simple_pair(number)) for number in numbers])
    return {name: tmp_path / f"{name}.jsonl" for name in ROWS}


def mixed(files: Mapping[str, Path], keys: Mapping[str, Mapping[str, object]], **more: Any) -> Selection:
    mix = mixture.read({name: {"source": str(files[name]), **keys[name]} for name in keys})
    return Selection(train=mixture.train_of(mix), kind="preference", mix=mix, **more)


def weighted(files: Mapping[str, Path], **more: Any) -> Selection:
    return mixed(files, {name: {"weight": weight} for name, weight in WEIGHTS.items()}, **more)


def sources_of(selection: Selection, split: Any = "train") -> Iterator[str]:
    """Yield the source of each row of a split, in order."""
    for row in read_rows(selection, split):
        number = int(str(row.question[0].content).split()[-1][:-1])
        yield next(name for name, numbers in ROWS.items() if number in numbers)


def test_an_epoch_has_the_shares_of_the_weights(files: dict[str, Path]) -> None:
    # 400 rows of chat are short of 60 % first: 666 rows in all.
    order = list(sources_of(weighted(files)))
    assert Counter(order) == {"chat": 400, "code": 200, "math": 66}
    steps = -(-len(order) // BATCH)
    learned = Counter(order[row] for step in range(steps) for row in batch(len(order), BATCH, 42, step))
    for name, weight in WEIGHTS.items():
        assert abs(learned[name] - weight / 100 * learned.total()) <= BATCH


def test_the_order_of_sources_and_of_rows_decides_nothing(files: dict[str, Path], tmp_path: Path) -> None:
    taken = {row_id(row) for row in read_rows(weighted(files), "train")}
    content = files["math"].read_text().splitlines()
    Random(1).shuffle(content)
    files["math"].write_text("\n".join(content) + "\n")
    backwards = mixed(files, {name: {"weight": WEIGHTS[name]} for name in reversed(WEIGHTS)})
    assert {row_id(row) for row in read_rows(backwards, "train")} == taken
    assert {row_id(row) for row in read_rows(weighted(files, split_seed=1), "train")} != taken


def test_caps_bound_a_source_and_without_weights_all_rows_are_taken(files: dict[str, Path]) -> None:
    capped = mixed(files, {"chat": {"max_rows": 30}, "code": {}, "math": {"max_rows": 7}})
    assert Counter(sources_of(capped)) == {"chat": 30, "code": 200, "math": 7}
    both = mixed(files, {"chat": {"weight": 1, "max_rows": 30}, "code": {"weight": 2}})
    assert Counter(sources_of(both)) == {"chat": 30, "code": 60}


def test_a_source_of_which_no_row_is_taken_is_a_warning(files: dict[str, Path]) -> None:
    short = {"chat": {"weight": 1}, "code": {"weight": 1000, "max_rows": 3}}
    found = survey(mixed(files, short))
    assert found.splits["train"].rows == 3
    (group,) = [group for group in found.findings if group.rule == "source-not-taken"]
    assert group.sentence.startswith(
        "warning: dataset.mix.chat: none of its rows is taken, as the source that is short"
    )
    even = survey(mixed(files, {"chat": {"weight": 1}, "code": {"weight": 1, "max_rows": 3}}))
    assert "source-not-taken" not in [group.rule for group in even.findings]


def test_max_rows_keeps_the_shares(files: dict[str, Path]) -> None:
    assert Counter(sources_of(weighted(files, max_rows=50))) == {"chat": 30, "code": 15, "math": 5}


def test_held_out_rows_have_the_shares_too_and_are_counted_by_source(files: dict[str, Path]) -> None:
    selection = weighted(files, validation_fraction=0.2, max_held_out_rows=30)
    held_out = Counter(sources_of(selection, "validation"))
    assert held_out == {"chat": 18, "code": 9, "math": 3}
    found = survey(selection)
    assert list(found.by_file["validation"].values()) == [18, 9, 3]
    assert found.splits["train"].rows == sum(1 for _ in sources_of(selection))
    assert Counter(source for _, source in read_with_source(selection, "validation")) == held_out


def test_several_processes_take_the_same_rows(files: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "BLOCK_BYTES", 2000)
    selection = weighted(files, validation_fraction=0.2)
    with Pool(Processes(2, after=0)) as pool:
        assert survey(selection, pool=pool) == survey(selection)


def test_a_file_that_has_changed_is_mixed_again(files: dict[str, Path]) -> None:
    before = Counter(sources_of(weighted(files)))
    write_lines(files["chat"], [trl(simple_pair(number)) for number in range(40)])
    assert Counter(sources_of(weighted(files))) == {"chat": 40, "code": 20, "math": 6} != before


numbers = st.integers(0, 500)


@given(st.lists(st.tuples(numbers, st.floats(0.01, 100)), min_size=1, max_size=5), st.integers(1, 1000))
def test_each_share_is_right_to_a_row_and_no_row_is_taken_twice(given: list[tuple[int, float]], room: int) -> None:
    mix = tuple((str(place), mixture.Mixed("", weight)) for place, (_, weight) in enumerate(given))
    present = [number for number, _ in given]
    taken = mixture.counts(mix, present, room)
    total = sum(weight for _, weight in given)
    for count, (number, weight) in zip(taken, given, strict=True):
        assert count <= number
        assert abs(count - weight / total * sum(taken)) <= 1 + 1e-6
    assert sum(taken) <= room


@pytest.mark.parametrize(
    ("mix", "reported"),
    [
        ({"a": {"weight": 1}}, "dataset.mix.a: Object missing required field `source`; allowed: {source: FILES, "),
        ({"a": {"source": "x", "wieght": 1}}, "dataset.mix.a: Object contains unknown field `wieght`; allowed: "),
        ({"a": {"source": "x"}, "b": {"source": "y", "weight": 0}}, "dataset.mix.b.weight: Expected `float` > 0.0; "),
        ({"a": "x"}, "dataset.mix.a: Expected `object`, got `str`; allowed: {source: FILES, "),
        ({"a/b": {"source": "x"}}, "dataset.mix: a source is called 'a/b'; allowed: letters, digits, - _ and ."),
        ({"a": {"source": "x", "weight": 1}, "b": {"source": "y"}}, "dataset.mix.b: has no weight, while others have"),
        ({"a": {"source": "x"}, "b": {"source": ["y", "x"]}}, "dataset.mix: x is in more than one source"),
    ],
)
def test_what_is_wrong_with_a_mixture_is_said(mix: dict[str, Any], reported: str) -> None:
    with pytest.raises(ValueError, match=r"^dataset\.mix") as caught:
        mixture.read(json.loads(json.dumps(mix)))
    assert str(caught.value).startswith(reported)


def test_metrics_are_reported_by_source() -> None:
    rows = [{"loss": 1.0, "weight": 1.0}, {"loss": 2.0, "weight": 3.0}, {"loss": 4.0, "weight": 1.0}]
    assert mean(rows, {"chat": 2, "code": 0, "math": 1}) == {
        "eval/loss": 11 / 5,
        "eval/chat/loss": 7 / 4,
        "eval/math/loss": 4.0,
    }
