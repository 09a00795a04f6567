"""Pages in a real browser: light and dark, phone and screen, print; nothing overflows, nothing is fetched."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from runner.compare import output, verdict
from runner.compare.results import Result
from tests.compare.records import run, write
from tests.compare.test_rows import HOSTILE
from tests.promotion.answering import Place

pytestmark = pytest.mark.slow

LONG = "a" * 300


@pytest.fixture(scope="module")
def page_of_a_run(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """The page of a real run, whose data has findings and one of whose names is a stranger's text."""
    place = Place.made(tmp_path_factory.mktemp("paged"), tiny_model)
    rows = (place.folder / "no.jsonl").read_text("utf-8")
    strange = rows.splitlines()[0].replace("fresh", HOSTILE.replace('"', "'"))
    (place.folder / "no.jsonl").write_text(f"{rows}{strange}\n{rows.splitlines()[1]}\n", "utf-8")
    return place.run("paged", "no", "tracking=none", "dataset.validation_fraction=0.2") / "report.html"


@pytest.fixture(scope="module")
def page_of_six_trials(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a comparison of six runs, with curves, long names and strangers' answers."""
    folder, found = tmp_path_factory.mktemp("compared"), list[Result]()
    for number in range(6):
        scores = {"right": [float(at < 10 + number) for at in range(16)]}
        texts = {each: [HOSTILE, LONG, *(f"{each} {number} {at}" for at in range(14))] for each in ("base", "tuned")}
        write(folder / f"run{number}", {"base": {"right": [0.0] * 16}, "tuned": scores}, texts)
        made = run(folder / f"run{number}", scores, beta=f"{LONG[:80]}{number}")
        curve = [(step, 1.0 / (1 + step + number)) for step in range(1, 30)]
        found.append(replace(made, curves={"eval/right": curve, "train/loss": curve}))
    output.write(verdict.make(found), folder / "to")
    return folder / "to" / "comparison.html"


@pytest.fixture(scope="module")
def page_of_two_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of a comparison of runs that differ in two keys, one of them wider than a phone, with two seeds each."""
    folder, found = tmp_path_factory.mktemp("keys"), list[Result]()
    for right, (beta, multiplier, seed) in enumerate(
        [(0.25, 0.5, 1), (0.25, 0.5, 2), (0.2, 0.015, 1), (0.2, 0.015, 2)]
    ):
        scores = {"right": [float(at < 6 + right) for at in range(16)]}
        keys = {"dpo.beta": beta, "dpo.learning_rate_multiplier": multiplier, "seed": seed}
        found.append(run(folder / f"run{right}", scores, **keys))
    output.write(verdict.make(found), folder / "to")
    return folder / "to" / "comparison.html"


def seen(browser: Any, page: Path, width: int, theme: str) -> dict[str, Any]:
    """Return what a page is at a width in a theme."""
    size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    media = {"media": "", "features": [{"name": "prefers-color-scheme", "value": theme}]}
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", media)
    browser.get(page.as_uri())
    found: dict[str, Any] = browser.execute_script("""
      const wide = [...document.body.querySelectorAll('*')].filter(each => {
        const scrolled = each.closest('table, .answer, .reason'), box = each.getBoundingClientRect();
        return !scrolled && box.width && box.right > document.documentElement.clientWidth + 1; });
      return {width: document.documentElement.scrollWidth, inner: innerWidth, title: document.title,
        wide: wide.map(each => each.outerHTML.slice(0, 100)),
        fetched: performance.getEntriesByType('resource').map(each => each.name),
        paper: getComputedStyle(document.body).backgroundColor, ink: getComputedStyle(document.body).color}""")
    return found


def broken_numbers(browser: Any) -> list[str]:
    """Return the numbers in the title and the sentences of a page that begin on one line and end on another."""
    found: list[str] = browser.execute_script("""
      const broken = [], texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT), range = new Range();
      while (texts.nextNode()) {
        const node = texts.currentNode;
        for (const match of node.parentElement.closest('h1, li') ? node.data.matchAll(/[\\d.]*\\d/g) : []) {
          range.setStart(node, match.index), range.setEnd(node, match.index + match[0].length);
          if (new Set([...range.getClientRects()].map(each => each.top)).size > 1) broken.push(match[0]);
        }
      }
      return broken""")
    return found


def test_a_number_in_a_title_or_a_sentence_is_on_one_line_at_each_width(page_of_two_keys: Path, browser: Any) -> None:
    for width in range(320, 500, 10):
        seen(browser, page_of_two_keys, width, "light")
        assert (width, broken_numbers(browser)) == (width, [])
    assert browser.find_element("tag name", "h1").text == (
        "best by right: dpo.beta=0.2, dpo.learning_rate_multiplier=0.015 (0.5312 ± 0.4, 2 seeds), but the "
        "other one does not differ significantly"
    )


def test_a_long_prompt_is_scrolled_in_its_row_and_printed_whole(browser: Any, tmp_path: Path) -> None:
    document = "All about ovens. " * 2000
    write(tmp_path / "run", {"base": {"right": [0.0]}, "tuned": {"right": [1.0]}}, question=document)
    output.write(verdict.make([run(tmp_path / "run", {"right": [1.0]})]), tmp_path / "to")
    seen(browser, tmp_path / "to" / "comparison.html", 390, "light")
    prompt = browser.find_element("css selector", ".prompt .text")
    assert prompt.text.strip() == document.strip()
    assert prompt.rect["height"] < 400
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    assert prompt.rect["height"] > 4000


@pytest.mark.parametrize("kind", ["page_of_a_run", "page_of_six_trials"])
def test_a_page_fits_a_phone_and_a_screen_in_both_themes_and_fetches_nothing(
    kind: str, browser: Any, request: pytest.FixtureRequest
) -> None:
    page: Path = request.getfixturevalue(kind)
    papers = set()
    for width in (390, 1400):
        for theme in ("light", "dark"):
            found = seen(browser, page, width, theme)
            assert (found["width"] <= found["inner"], found["wide"]) == (True, []), (width, theme)
            assert found["fetched"] == []
            assert found["title"] != "taken over"
            papers.add((theme, found["paper"], found["ink"]))
    assert len(papers) == 2, "each theme has its own paper and ink"
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "print"})
    for form in browser.find_elements("tag name", "form"):
        assert not form.is_displayed()
    logged = [each for each in browser.get_log("browser") if each["level"] == "SEVERE"]
    assert logged == [], "the page's own policy blocked something of it"


def test_the_page_of_a_run_says_what_was_asked_found_measured_and_how_to_use_and_repeat_it(
    page_of_a_run: Path, browser: Any
) -> None:
    browser.get(page_of_a_run.as_uri())
    heads = [each.text for each in browser.find_elements("tag name", "h2")]
    assert heads == [
        "Graded answers", "Metrics", "Curves", "Rows side by side", "Request", "Data", "Time and cost", "Use it",
        "Repeat it", "Versions",
    ]  # fmt: skip
    text = browser.find_element("tag name", "body").text
    folder = page_of_a_run.parent
    assert f"{folder.name}: finished" in text
    report = json.loads((folder / "report.json").read_bytes())
    for sentence in (*report["graded"], "sft.n_epochs 5 auto", f"python -m runner.compare --repeat {folder.name}"):
        assert sentence in text
    assert f"python -m runner.promote {folder.name}" in text
    survey = json.loads((folder / "survey.json").read_bytes())
    assert survey["findings"], "a row is there twice"
    assert survey["findings"][0]["examples"][0]["message"] in text
    assert len(browser.find_elements("css selector", "svg.curves polyline")) >= 4
    assert len(browser.find_elements("css selector", ".row ins")) > 0
