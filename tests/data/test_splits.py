"""The rows asked for are the rows read: by path, glob or list, up to a number, held out in the same way each time."""

import os
import shutil
import tempfile
from collections.abc import Callable, Sequence
from hashlib import sha256
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from runner.data.kinds.conversation import Conversation
from runner.data.kinds.preference import Pair
from runner.data.reading.files import locate
from runner.data.rows import Row
from runner.data.splits import Selection, Split, read_rows, splits_of
from runner.data.survey import survey
from runner.errors import DataError
from tests.data.samples import assistant, foundry, look, reported, simple_pair, trl, unhurried, user, write_lines

SPLITS: tuple[Split, ...] = ("train", "validation")


def write(path: Path, numbers: Sequence[int]) -> Path:
    write_lines(path, [foundry(simple_pair(number)) for number in numbers])
    return path


def divided(path: Path, fraction: float = 0.3, seed: int = 0, max_rows: int | None = None) -> dict[Split, list[Row]]:
    """Return the rows of both splits."""
    chosen = Selection(
        train=str(path), kind="preference", validation_fraction=fraction, split_seed=seed, max_rows=max_rows
    )
    return {split: list(read_rows(chosen, split)) for split in SPLITS}


def test_without_validation_there_is_one_split(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", range(3))
    assert splits_of(Selection(train=str(path), kind="preference")) == ("train",)
    assert list(look(path).splits) == ["train"]


def test_each_row_falls_to_one_split_and_keeps_its_order(tmp_path: Path) -> None:
    rows = divided(write(tmp_path / "data.jsonl", range(200)))
    held = set(map(id, rows["validation"]))
    assert sorted(rows["train"] + rows["validation"], key=str) == sorted(map(simple_pair, range(200)), key=str)
    assert 40 < len(held) < 80
    assert rows["train"] == [row for row in map(simple_pair, range(200)) if row in rows["train"]]


def test_rows_stay_in_their_split_when_others_are_added_removed_or_moved(tmp_path: Path) -> None:
    before = divided(write(tmp_path / "a.jsonl", range(100)))
    after = divided(write(tmp_path / "b.jsonl", [*range(250, 150, -1), *range(99, 20, -1)]))
    staying = [simple_pair(number) for number in range(21, 100)]
    for split in SPLITS:
        kept = [row for row in staying if row in before[split]]
        assert [row for row in reversed(after[split]) if row in before[split]] == kept


def test_rows_with_the_same_prompt_are_never_divided(tmp_path: Path) -> None:
    rows = [
        trl(Pair((user(f"Why {number % 20}?"),), (assistant(f"A {number}"),), (assistant("B"),)))
        for number in range(100)
    ]
    write_lines(path := tmp_path / "data.jsonl", rows)
    prompts = {split: {row.prompt for row in rows if isinstance(row, Pair)} for split, rows in divided(path).items()}
    assert prompts["train"]
    assert prompts["validation"]
    assert not prompts["train"] & prompts["validation"]


def test_a_pair_and_its_conversation_fall_to_the_same_split(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", range(50))
    chosen = Selection(train=str(path), kind="conversation", validation_fraction=0.3)
    pairs = [Conversation.of(row) for row in divided(path)["validation"] if isinstance(row, Pair)]
    assert list(read_rows(chosen, "validation")) == pairs


def test_another_seed_holds_out_other_rows(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", range(100))
    assert divided(path, seed=1)["validation"] != divided(path, seed=2)["validation"]
    assert divided(path, seed=1) == divided(path, seed=1)


def test_a_larger_fraction_holds_out_the_same_rows_and_more(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", range(100))
    few, more = divided(path, 0.1)["validation"], divided(path, 0.4)["validation"]
    assert all(row in more for row in few)
    assert len(few) < len(more)


@pytest.mark.parametrize("max_rows", [1, 3, 7, 100])
def test_max_rows_takes_the_first_rows_of_each_split(tmp_path: Path, max_rows: int) -> None:
    path = write(tmp_path / "data.jsonl", range(40))
    whole, cut = divided(path), divided(path, max_rows=max_rows)
    assert cut == {split: rows[:max_rows] for split, rows in whole.items()}


def test_max_rows_counts_good_rows_and_what_comes_after_is_not_judged(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", range(3))
    lines = path.read_text("utf-8").splitlines()
    path.write_text("\n".join([lines[0], "{", lines[1], lines[2], "{"]), "utf-8")
    found = look(path, max_rows=2)
    assert (found.refused, found.splits["train"].rows) == (1, 2)
    assert [each.split(" the JSON")[0] for each in reported(found, tmp_path)] == ["error not-json data.jsonl:2:"]


def test_max_rows_holds_over_several_files(tmp_path: Path) -> None:
    files = [str(write(tmp_path / f"{name}.jsonl", numbers)) for name, numbers in [("a", range(3)), ("b", range(3, 6))]]
    chosen = Selection(train=files, kind="preference", max_rows=4)
    assert list(read_rows(chosen, "train")) == [simple_pair(number) for number in range(4)]


def test_max_rows_holds_for_a_validation_file_too(tmp_path: Path) -> None:
    train, held = write(tmp_path / "a.jsonl", range(5)), write(tmp_path / "b.jsonl", range(5, 10))
    found = survey(Selection(train=str(train), validation=str(held), kind="preference", max_rows=2))
    assert {name: split.rows for name, split in found.splits.items()} == {"train": 2, "validation": 2}


@unhurried
@given(
    st.lists(st.integers(0, 30), min_size=1, max_size=40),
    st.sampled_from([0.0, 0.3, 0.9]),
    st.none() | st.integers(1, 9),
    st.integers(0, 2),
)
def test_training_reads_the_rows_that_were_surveyed(
    tmp_path: Path, numbers: list[int], fraction: float, max_rows: int | None, seed: int
) -> None:
    path = write(tmp_path / "data.jsonl", numbers)
    chosen = Selection(
        train=str(path), kind="preference", validation_fraction=fraction, max_rows=max_rows, split_seed=seed
    )
    for split, summed in survey(chosen).splits.items():
        write_lines(
            alone := tmp_path / "alone.jsonl", [trl(row) for row in read_rows(chosen, split) if isinstance(row, Pair)]
        )
        if summed.rows:
            assert look(alone).splits["train"] == summed


def test_a_glob_gives_its_files_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("b", "a", "c"):
        write(tmp_path / f"{name}.jsonl", range(2))
    (tmp_path / "d.jsonl").mkdir()
    assert [file.name for file in locate("*.jsonl")] == ["a.jsonl", "b.jsonl", "c.jsonl"]
    assert [file.name for file in locate(["c.jsonl", "[ab].jsonl"])] == ["c.jsonl", "a.jsonl", "b.jsonl"]
    assert [file.path for file in locate(f"{tmp_path}/?.jsonl")] == [tmp_path / f"{name}.jsonl" for name in "abc"]


def test_a_file_whose_name_looks_like_a_pattern_is_that_file(tmp_path: Path) -> None:
    path = write(tmp_path / "data[1].jsonl", range(2))
    assert [file.path for file in locate(str(path))] == [path]


def test_embedded_files_are_called_by_their_name() -> None:
    [file] = locate("embedded:house_style.train.dpo.jsonl")
    assert file.name == "embedded:house_style.train.dpo.jsonl"
    assert {each.name for each in locate("embedded:house_style.*.dpo.jsonl")} == {
        "embedded:house_style.train.dpo.jsonl",
        "embedded:house_style.validation.dpo.jsonl",
    }


def test_embedded_data_have_no_fault() -> None:
    kinds: dict[str, str] = {"dpo": "preference", "sft": "conversation"}
    for method, kind in kinds.items():
        name = "embedded:house_style.{}." + method + ".jsonl"
        found = survey(Selection(train=name.format("train"), validation=name.format("validation"), kind=kind))
        assert found.findings == ()
        found.require_trainable("stop")


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("pairs.json", "{}/pairs.json: no such file; did you mean {}/pairs.jsonl."),
        ("zzz", "{}/zzz: no such file; {} holds folder, pairs.jsonl."),
        ("no/pairs.jsonl", "{}/no/pairs.jsonl: no such file; its folder {}/no does not exist."),
        ("folder", "{}/folder: is a folder; name its files, for example {}/folder/*.jsonl."),
        ("folder/*.jsonl", "{}/folder/*.jsonl: no such file; {}/folder holds nothing."),
    ],
)
def test_what_is_no_file_is_reported_with_what_is_there(tmp_path: Path, asked: str, message: str) -> None:
    write(tmp_path / "pairs.jsonl", range(2))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError) as caught:
        look(tmp_path / asked)
    assert str(caught.value) == message.replace("{}", str(tmp_path))


def test_an_embedded_file_that_does_not_exist_is_reported_with_one_that_does() -> None:
    with pytest.raises(
        DataError, match=r"^embedded:house_style\.train\.dpo: no such file; did you mean embedded:house_"
    ):
        locate("embedded:house_style.train.dpo")


def test_an_empty_list_is_refused() -> None:
    with pytest.raises(DataError, match=r"^dataset\.train: got an empty list; "):
        locate([])


def test_a_file_that_may_not_be_read_is_reported_so() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        path = write(Path(folder, "data.jsonl"), range(2))
        path.chmod(0)
        said = as_somebody_else(lambda: look(path))
        assert said == f"{path}: Permission denied; a file that can be read is needed; check it."


@pytest.mark.parametrize("mode", [0o000, 0o600])
def test_a_folder_that_may_not_be_entered_is_reported_so(mode: int) -> None:
    with tempfile.TemporaryDirectory() as folder:  # the folders above pytest's own are closed to others
        Path(folder).chmod(0o755)
        (closed := Path(folder, "closed")).mkdir()
        write(closed / "data.jsonl", range(2))
        closed.chmod(mode)
        said = as_somebody_else(lambda: locate(str(closed / "data.jsonl")))
        closed.chmod(0o700)
        assert said == f"{closed}/data.jsonl: Permission denied; a file that can be read is needed; check the path."


def as_somebody_else(work: Callable[[], object]) -> str:
    """Return the error that some work raises in a process without root's rights."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.geteuid() == 0:
                os.setuid(65534)
            work()
        except BaseException as error:
            os.write(writer, (str(error) if isinstance(error, DataError) else repr(error)).encode())
        finally:
            os._exit(0)
    os.close(writer)
    with open(reader, encoding="utf-8") as said:  # noqa: PTH123 (a descriptor)
        text = said.read()
    os.waitpid(child, 0)
    return text


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("~nouser/x.jsonl", "~nouser/x.jsonl: there is no user nouser here; write the path out."),
        (
            "x" * 300,
            f"{'x' * 200}…: File name too long; a file that can be read is needed; check the path.",
        ),
        ("a\0b.jsonl", "a\0b.jsonl: no such file; {} holds nothing."),
        (
            "**.jsonl",
            "**.jsonl: is no path or pattern (Invalid pattern: '**' can only be an entire path component); check it.",
        ),
    ],
)
def test_what_can_be_no_path_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError) as caught:
        locate(name)
    assert str(caught.value) == message.replace("{}", ".")


def test_a_pipe_is_reported_so(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    reader, writer = os.pipe()
    try:
        for path in (str(tmp_path / "pipe"), f"/dev/fd/{reader}"):
            with pytest.raises(DataError) as caught:
                locate(path)
            assert str(caught.value) == (
                f"{path}: is a pipe, which can be read only once; rows are read several times; "
                "write them to a file first."
            )
    finally:
        os.close(reader)
        os.close(writer)


def test_a_device_is_reported_so() -> None:
    with pytest.raises(DataError, match=r"^/dev/null: is no file but a device or a socket; "):
        locate("/dev/null")


def test_a_link_to_nothing_is_reported_with_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "data.jsonl").symlink_to("gone.jsonl")
    with pytest.raises(DataError) as caught:
        locate(str(tmp_path / "data.jsonl"))
    assert str(caught.value) == (
        f"{tmp_path}/data.jsonl: is a link to gone.jsonl, which does not exist; fix the link, or name the file itself."
    )


def test_a_data_folder_may_be_moved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    write(first / "data.jsonl", range(5))
    shutil.copytree(first, second)
    monkeypatch.chdir(second)
    assert look(Path("data.jsonl")).splits == look(first / "data.jsonl").splits


def test_held_out_rows_have_a_limit_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "data.jsonl", range(200))
    whole = divided(path)
    chosen = Selection(train=str(path), kind="preference", validation_fraction=0.3, max_held_out_rows=7)
    assert list(read_rows(chosen, "train")) == whole["train"]
    assert list(read_rows(chosen, "validation")) == whole["validation"][:7]
    assert {name: split.rows for name, split in survey(chosen).splits.items()} == {
        "train": len(whole["train"]),
        "validation": 7,
    }


def test_where_our_own_template_writes_tools_the_order_of_their_keys_makes_other_rows(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello."}]
    one = {"messages": turns, "tools": [{"type": "function", "function": {"name": "now", "description": "The time."}}]}
    other = {
        "messages": turns,
        "tools": [{"function": {"description": "The time.", "name": "now"}, "type": "function"}],
    }
    plain = {"messages": turns}

    def lines(row: object, in_order: bool) -> bytes:
        write_lines(tmp_path / "data.jsonl", [row])
        chosen = Selection(train=str(tmp_path / "data.jsonl"), kind="conversation", in_order=in_order)
        content = chosen.lines(list(read_rows(chosen, "train")))
        assert survey(chosen).splits["train"].fingerprint == sha256(content).hexdigest()
        return content

    assert lines(one, in_order=False) == lines(other, in_order=False)
    assert lines(one, in_order=True) != lines(other, in_order=True)
    assert b'{"type":"function","function":{"name":"now","description":"The time."}}' in lines(one, in_order=True)
    assert lines(plain, in_order=True) == lines(plain, in_order=False)
