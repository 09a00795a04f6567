"""Before anything is paid for, graders meet the rows: a missing field is named by line, useless scores are reported."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from runner.data import problems
from runner.errors import DataError
from runner.evaluation import configured
from runner.evaluation.rehearsal.rehearsed import Rehearsed
from runner.evaluation.rehearsal.tried import rehearse
from runner.judging.keys import JudgeKeys
from runner.record.graded import Asked
from runner.record.samples import Sampling, asked

EXACT: dict[str, Any] = {
    "type": "string_check", "name": "exact", "input": "{{ sample.output_text }}", "reference": "{{ item.answer }}",
    "operation": "eq",
}  # fmt: skip
LOST = {
    "type": "python", "name": "lost", "source": "def grade(sample, item):\n    return float(item['solution'] == 'a')",
}  # fmt: skip
SAMPLING = Sampling(max_new_tokens=50)


def rows(folder: Path, *content: dict[str, Any]) -> list[Asked]:
    path = folder / "prompts.jsonl"
    path.write_bytes(msgspec.json.Encoder().encode_lines(content))
    return asked(problems.read(str(path)), None, by_prompt=False)


def rehearsed(rows: list[Asked], *graders: dict[str, Any], keys: JudgeKeys | None = None) -> list[Rehearsed]:
    return rehearse(rows, configured.named(graders), keys or JudgeKeys(), SAMPLING)


def test_a_field_that_one_of_5000_rows_lacks_is_named_by_file_and_line(tmp_path: Path) -> None:
    content = [{"prompt": f"{number}?", "answer": str(number)} for number in range(5_000)]
    content[3_141] = {"prompt": "3141?", "anwser": "3141"}
    with pytest.raises(DataError) as caught:
        rehearsed(rows(tmp_path, *content), EXACT)
    assert str(caught.value) == (
        f"{tmp_path}/prompts.jsonl:3142: grader exact names item.answer, which 1 of 5,000 rows do not have; there is "
        "item.messages, item.anwser; add the field to each row, or fix the template."
    )


def test_a_held_out_row_without_a_field_is_named_by_what_it_asks(tmp_path: Path) -> None:
    held_out = [replace(each, place="") for each in rows(tmp_path, {"prompt": "Why?"}, {"prompt": "How?"})]
    with pytest.raises(DataError, match=r"^the held-out row 'Why\?', the held-out row 'How\?': grader exact names"):
        rehearsed(held_out, EXACT)


def test_good_wrong_and_empty_answers_are_graded(tmp_path: Path) -> None:
    [found] = rehearsed(rows(tmp_path, *({"prompt": f"{each}?", "answer": each} for each in "abc")), EXACT)
    assert found.scores == {"good": 1.0, "other": 0.0, "empty": 0.0}
    assert found.warnings == ()


def test_a_grader_that_reports_nothing_apart_is_reported(tmp_path: Path) -> None:
    same = EXACT | {"reference": "{{ sample.output_text }}"}
    [found] = rehearsed(rows(tmp_path, {"prompt": "a?", "answer": "a"}, {"prompt": "b?", "answer": "b"}), same)
    assert found.warnings == ("every answer, good, bad or empty, has the score 1: it distinguishes nothing",)


def test_a_grader_that_likes_bad_answers_better_is_reported(tmp_path: Path) -> None:
    content = [{"prompt": f"{each}?", "chosen": each, "rejected": f"no {each}"} for each in "ab"]
    [found] = rehearsed(rows(tmp_path, *content), EXACT | {"reference": "{{ item.rejected }}"})
    assert found.warnings[0] == "rejected answers have a better score (1) than good ones (0)"


def test_answers_that_get_no_grade_are_counted_with_the_first_error(tmp_path: Path) -> None:
    content = [{"prompt": f"{each}?", "answer": each} for each in "ab"]
    [found] = rehearsed(rows(tmp_path, *content), LOST)
    place = f"first that of {tmp_path}/prompts.jsonl:1: line 2: KeyError: 'solution'"
    assert found.warnings == (
        f"no grade for 2 of 2 good answers, {place}", f"no grade for 2 of 2 other answers, {place}",
    )  # fmt: skip


def test_a_grader_that_fails_is_reported_where_the_data_has_no_answers(tmp_path: Path) -> None:
    [found] = rehearsed(rows(tmp_path, {"prompt": "a?"}, {"prompt": "b?"}), LOST)
    place = f"first that of {tmp_path}/prompts.jsonl:1: line 2: KeyError: 'solution'"
    assert found.warnings == (f"no grade for 2 of 2 empty answers, {place}",)


def test_scores_that_differ_in_their_last_digit_are_no_better_ones(tmp_path: Path) -> None:
    content = [{"prompt": f"{each}?", "answer": each} for each in "abc"]
    source = "def grade(sample, item):\n    return 0.3 + 1e-9 * (sample['output_text'] != item['answer'])"
    [found] = rehearsed(rows(tmp_path, *content), {"type": "python", "name": "close", "source": source})
    assert found.warnings == ()


def test_a_judge_is_not_asked_but_its_price_is_reported(tmp_path: Path) -> None:
    pytest.importorskip("openai")
    judged = {
        "type": "score_model", "name": "helpful", "model": "gpt-4.1", "range": [0, 1],
        "input": [{"role": "user", "content": "Grade {{ sample.output_text }} next to {{ item.answer }}."}],
    }  # fmt: skip
    keys = JudgeKeys(url="http://127.0.0.1:9/v1", input_price=2.0, output_price=8.0)
    content = [{"prompt": f"{each}?", "answer": each} for each in "ab"]
    [found] = rehearsed(rows(tmp_path, *content), judged, keys=keys)
    assert found.scores == {}
    assert found.price is not None
    assert found.price.questions == 4
    dollars = (found.price.input_tokens * 2 + found.price.output_tokens * 8) / 1e6
    assert found.price.dollars == pytest.approx(dollars)
