"""What a person sees of a sweep, in a real browser: our page and MLflow's own."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import stores
from tests.conftest import pair_row
from tests.sweeps.conftest import Here
from tests.tracking.browsing import close_assistant, wait
from tests.tracking.server import Server

pytestmark = pytest.mark.slow

RATES = (0.25, 0.5, 1, 2)


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[tuple[Here, Server]]:
    folder = tmp_path_factory.mktemp("swept")
    rows = folder / "pairs.jsonl"
    rows.write_text("".join(json.dumps(pair_row(number)) + "\n" for number in range(16)), "utf-8")
    here = Here(folder, tiny_model, rows)
    stores.put_empty(folder)
    server = Server(here.folder, f"sqlite:///{here.folder}/mlflow.db")
    rates = f"dpo.learning_rate_multiplier={','.join(map(str, RATES))}"
    done = here.run(rates, f"tracking.uri={server.uri}", "name=rates", "evaluation.every=1")
    assert done.returncode == 0, done.stderr
    yield here, server
    server.kill()


def test_the_comparison_of_four_trials_shows_four_curves(swept: tuple[Here, Server], browser: Any) -> None:
    (page,) = swept[0].folder.glob("runs/sweeps/*/comparison.html")
    browser.get(page.as_uri())
    wait(lambda: True, browser, "comparison")
    curves = browser.find_elements("css selector", "figure:first-of-type #axes_1 > g[id^=line2d] > path")
    assert len(curves) == len(RATES)
    assert browser.find_element("tag name", "h1").text.startswith("best by reward accuracy: ")


def test_mlflows_own_page_folds_the_trials_and_draws_their_curves(swept: tuple[Here, Server], browser: Any) -> None:
    from mlflow import MlflowClient

    server = swept[1]
    experiment = MlflowClient(server.uri).get_experiment_by_name("runner")
    assert experiment is not None
    page = f"{server.uri}/#/experiments/{experiment.experiment_id}/runs"

    def all_of(selector: str) -> list[Any]:
        found: list[Any] = browser.find_elements("css selector", selector)
        return found

    def reported() -> str:
        # Selenium's own `text` looks at each element's style: half a second each time on this page.
        return str(browser.execute_script("return document.body.innerText"))

    browser.get(f"{page}?viewStateShareKey=runner")
    wait(lambda: "rates-" in reported() and "eval/loss" in reported(), browser, "runs")
    close_assistant(browser)
    assert " · l" not in reported(), "the trials are folded under their sweep"

    browser.get("about:blank")  # else only the fragment changes
    browser.get(f"{page}?compareRunsMode=CHART")
    wait(lambda: bool(all_of(".ag-row button")), browser, "folded")
    all_of(".ag-row button")[0].click()
    drawn = ".js-plotly-plot .scatterlayer"
    wait(lambda: any(len(plot.find_elements("css selector", ".trace .js-line")) >= len(RATES)
                     for plot in all_of(drawn)), browser, "curves")  # fmt: skip
    for rate in RATES:
        assert f"{rate} · l" in reported(), "the values come first, as the column is narrow"
