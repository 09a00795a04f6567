"""The command over real runs whose answers were graded, and over an evaluation."""

import json
from pathlib import Path

import pytest

from tests import warm
from tests.compare.records import write, write_evaluation
from tests.sweeps.conftest import Here

pytestmark = pytest.mark.slow

GOOD, BAD, CLOSE = [1.0] * 24, [0.0] * 20 + [1.0] * 4, [0.5, 0.75] * 12


@pytest.fixture
def here(tmp_path: Path, tiny_model: Path, pairs_file: Path) -> Here:
    return Here(tmp_path, tiny_model, pairs_file)


def test_a_run_and_an_evaluation_are_compared_by_all_graders_and_a_page_shows_their_answers(here: Here) -> None:
    line = here.line("tracking=none", "name=one", sweep=False)
    warm.run(line, cwd=here.folder, env=here.environment(), check=True)
    (folder,) = here.folder.glob("runs/one-*")
    write(folder, {"base": {"right": BAD, "close": CLOSE}, "tuned": {"right": GOOD, "close": CLOSE}})
    write_evaluation(here.folder / "runs" / "evaluations" / "judged", {"hosted": {"right": BAD, "close": CLOSE}})
    reported = here.compare("one", "judged", "--metric", "graders", "--margin", "0.02", "--json", "--to", "out")
    assert reported.returncode == 0, reported.stderr
    alone = here.compare("one", f"runs/{folder.name}")
    assert "seeds" not in alone.stdout, "a run that is named twice is one run"
    assert "tuned beats base: right +" in alone.stdout
    assert "tuned and base come out alike in close" in alone.stdout
    found = json.loads(reported.stdout)
    assert (found["metric"], found["further"]) == ("eval/right", ["eval/close"])
    right, close = found["differences"]
    assert (right["rows"], right["family"], right["better"]) == (24, 2, True)
    assert right["sentence"].startswith(f"{folder.name} beats judged: right +")
    assert " points, 95% interval" in right["sentence"]
    assert "p<0.001 corrected for 2 comparisons" in right["sentence"]
    assert close["no_worse"]
    page = (here.folder / "out" / "comparison.html").read_text("utf-8")
    assert page.count('<section class="row"') == 24
    assert page.count("base says 3<") == 1
    for margin in ("0", "much"):
        refused = here.compare("one", "--margin", margin)
        assert refused.returncode == 2
        assert f"got {margin}; allowed: a number above 0, in the metric's own unit" in refused.stderr


def test_an_evaluation_is_compared_by_its_folder_and_keeps_what_came_out(here: Here) -> None:
    write_evaluation(
        here.folder / "runs" / "evaluations" / "judged", {"small": {"right": BAD}, "large": {"right": GOOD}}
    )
    reported = here.compare("judged")
    assert reported.returncode == 0, reported.stderr
    assert reported.stdout.startswith("Best by right: model=large (1), better than every other beyond chance.")
    assert {each.suffix for each in (here.folder / "runs" / "evaluations" / "judged").glob("comparison.*")} == {
        ".json", ".md", ".html", ".png",
    }  # fmt: skip
