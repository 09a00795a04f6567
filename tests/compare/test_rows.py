"""Rows side by side: what changed most is first, words are marked, hostile answers are text, and the filters work."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from runner.compare import page, rows, verdict
from runner.compare.results import read_all
from runner.compare.rows import SideBySide, marked, side_by_side
from runner.data.rows import Message
from runner.record import graded
from runner.record.graded import Answer, AnswerGrade, Asked
from tests.compare.records import run, write, write_evaluation

HOSTILE = "</script><script>document.title = 'taken over'</script><img src=x onerror=\"document.title='taken over'\">"


def two_runs(folder: Path, count: int = 4) -> verdict.Comparison:
    """Return the comparison of two runs of the same rows, of which all but the last change."""
    quiet, loud = [0.0] * (count - 1) + [1.0], [1.0] * count
    found = []
    for name, scores in (("one", quiet), ("two", loud)):
        texts = {"base": ["no idea"] * count, "tuned": [f"The answer of {name} is {at}." for at in range(count)]}
        close = [0.5] * (count - 1) + [0.9 if name == "two" else 0.2]
        models = {"base": {"right": [0.0] * count, "close": [0.1] * count}, "tuned": {"right": scores, "close": close}}
        write(folder / name, models, texts)
        found.append(run(folder / name, models["tuned"], beta=name))
    return verdict.make(found)


def shown(found: verdict.Comparison) -> SideBySide:
    side = side_by_side(found)
    assert side is not None
    return side


def test_the_rows_that_changed_most_are_first_with_the_base_model_once(tmp_path: Path) -> None:
    side = shown(two_runs(tmp_path))
    assert side.columns == ("base model", "beta=two", "beta=one")
    assert side.graders == ("right", "close")
    assert [row.changes for row in side.rows] == [(1.0, 0.0)] * 3 + [(0.0, 0.7)]
    base, best, other = side.rows[0].cells
    assert base is not None
    assert best is not None
    assert other is not None
    assert [score.value for score in base.scores] == [0.0, 0.1]
    assert best.pieces == (("same", "The answer of two is 0."),)
    assert ("missing", "two ") in other.pieces
    assert ("added", "one ") in other.pieces
    assert [score.above for score in other.scores] == [-1.0, 0.0]
    assert side.marked == "beta=two"


def test_one_run_alone_is_marked_against_its_base_model(tmp_path: Path) -> None:
    write(tmp_path, {"base": {"right": [0, 1]}, "tuned": {"right": [1, 1]}})
    side = shown(verdict.make([run(tmp_path, {"right": [1, 1]})]))
    assert side.columns[0] == side.marked == "base model"
    assert [row.change for row in side.rows] == [1.0, 0.0]


def test_models_of_an_evaluation_may_be_called_as_those_of_a_run(tmp_path: Path) -> None:
    models = {"base": {"right": [0, 1]}, "tuned": {"right": [1, 1]}}
    assert shown(verdict.make(read_all(write_evaluation(tmp_path, models)))).columns == ("model=tuned", "model=base")


def test_words_are_marked_whole_and_both_texts_can_be_read_off() -> None:
    before, after = "Keep the bread in  a cloth.\nThen wait.", "Keep bread in  a paper bag.\nThen wait. Done."
    pieces = marked(before, after)
    assert "".join(text for kind, text in pieces if kind != "missing") == after
    assert "".join(text for kind, text in pieces if kind != "added").replace(" ", "") == before.replace(" ", "")
    assert marked("same", "same") == [("same", "same")]
    assert marked("", "new") == [("added", "new")]


def test_more_rows_than_a_page_holds_are_counted(tmp_path: Path) -> None:
    found = two_runs(tmp_path, rows.SHOWN + 5)
    side = shown(found)
    assert (len(side.rows), side.total) == (rows.SHOWN, rows.SHOWN + 5)
    assert side.rows[-1].change == 1.0, "the one that changed least is left out"
    assert "200 of 205 rows" in page.html(found, "", side)


def test_what_is_not_shown_of_an_answer_is_said(tmp_path: Path) -> None:
    folder = write_evaluation(tmp_path, {"one": {"right": [1]}})
    answers = [
        Answer(model="one", row="row0", sample=1, text="second"),
        Answer(model="one", row="row0", text="x" * (rows.LONGEST + 7), ended=False),
    ]
    graded.write(folder / graded.ANSWERS, answers)
    grades = [AnswerGrade(model="one", row="row0", grader="right", error="the judge gave no number")]
    graded.write(folder / graded.GRADES, grades)
    turns = (Message(role="system", content="Be brief."), Message(role="user", content="Why?"))
    graded.write(folder / graded.PROBLEMS, [Asked(row="row0", prompt=turns), Asked(row="row1", prompt=turns)])
    side = shown(verdict.make(read_all(folder)))
    (row,) = side.rows
    (cell,) = row.cells
    assert cell
    assert cell.note == "cut off at the token limit; 7 more characters; the first of 2 samples"
    assert row.earlier == turns[:1]
    assert side.marked == ""


def test_runs_without_answers_have_a_page_without_rows(tmp_path: Path) -> None:
    found = verdict.make([run(tmp_path, {"right": [1, 0]})])
    assert side_by_side(found) is None
    assert "Rows side by side" not in page.html(found, "<svg></svg>")


def test_what_strangers_wrote_is_text(tmp_path: Path) -> None:
    models = {HOSTILE: {HOSTILE: [0.0] * 12}, "two": {HOSTILE: [1.0] * 12}}
    found = verdict.make(read_all(write_evaluation(tmp_path, models, texts={each: [HOSTILE] * 12 for each in models})))
    text = page.html(found, "<svg></svg>", side_by_side(found))
    assert "<img" not in text
    assert text.count("<script>") == text.count("</script>") == 1
    assert "default-src 'none'" in text


@pytest.mark.slow
def test_a_browser_filters_rows_by_grader_and_by_change(tmp_path: Path) -> None:
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        pytest.skip("Chromium is not installed; Debian's packages are called chromium and chromium-driver")
    from selenium import webdriver
    from selenium.webdriver.support.ui import Select

    found = two_runs(tmp_path)
    path = Path(os.environ.get("RUNNER_SCREENSHOTS") or tmp_path) / "rows.html"
    path.write_text(page.html(found, "", side_by_side(found)), "utf-8")
    options = webdriver.ChromeOptions()
    options.binary_location = program
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1400,1000"):
        options.add_argument(flag)
    browser: Any = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        browser.get(path.as_uri())
        prompts = lambda: [each.text for each in browser.find_elements("css selector", ".row .prompt") if each.text]  # noqa: E731
        assert prompts() == ["Question 0?", "Question 1?", "Question 2?", "Question 3?"]
        browser.find_element("id", "changed").click()
        assert len(prompts()) == 4, "each changed in one of the graders"
        Select(browser.find_element("id", "grader")).select_by_visible_text("close")
        assert prompts() == ["Question 3?"]
        assert browser.find_element("id", "count").text == "1 shown"
        assert {each.text.split()[0] for each in browser.find_elements("css selector", ".grade") if each.text} == {
            "close"
        }
    finally:
        browser.quit()
