"""The documentation reports the truth: keys are the code's own, links lead somewhere, every data shape is named."""

import json
import re
import sys
from pathlib import Path

import pytest

from tests import key_table, warm
from tests.execution.test_resume import quietly

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").glob("*.md"))]


def test_the_page_of_keys_is_generated_from_the_code() -> None:
    assert key_table.PAGE.read_text("utf-8") == key_table.page(), "run python -m tests.key_table"


def test_every_data_shape_is_in_the_readme() -> None:
    from runner.data import formats
    from runner.request import hydra_config

    readme = (ROOT / "README.md").read_text("utf-8")
    assert [name for name in hydra_config.options(formats) if f"`{name}`" not in readme] == []


def test_the_readme_has_at_most_180_lines() -> None:
    assert len((ROOT / "README.md").read_text("utf-8").splitlines()) <= 180


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_and_paths_of_a_page_lead_to_files(page: Path) -> None:
    text = page.read_text("utf-8")
    links = [link for link in re.findall(r"\]\(([^)#\s]+)", text) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []
    if page.name != "CHANGELOG.md":  # what it reports of older versions may be gone
        paths = re.findall(r"`((?:runner|tests|conf|docs|examples|experiments)/[\w./-]+)`", text)
        places = (ROOT, ROOT / "examples" / "extend")
        real = [path for path in paths if "NAME" not in path and "mine" not in path]
        assert [path for path in real if not any((place / path).exists() for place in places)] == []


def test_code_that_the_page_on_extending_quotes_is_that_of_the_examples() -> None:
    text = (ROOT / "docs" / "extending.md").read_text("utf-8")
    code = "\n".join(path.read_text("utf-8") for path in (ROOT / "examples" / "extend").rglob("*.py"))
    quoted = re.findall(r"```python\n(.*?)\n```", text, re.DOTALL)
    assert len(quoted) >= 4
    assert [block for block in quoted if block not in code] == []


@pytest.mark.slow
def test_the_page_with_one_training_step_has_the_losses_of_the_engine(
    tiny_model: Path, pairs_file: Path, tmp_path: Path
) -> None:
    line = [
        f"model.source=path:{tiny_model}", "dataset=files", f"dataset.train={pairs_file}", "dpo.batch_size=3",
        "backend.max_steps=4", "backend.learning_rate=0.01", "evaluation.samples=0", "tracking=none",
    ]  # fmt: skip
    reported = warm.run([sys.executable, "-c", ONE_STEP, *line], cwd=tmp_path, env=quietly(), check=True).stdout
    page, engine = json.loads(reported.splitlines()[-1])
    assert len(page) == len(engine) == 4
    assert page == pytest.approx(engine, abs=1e-5)
    assert abs(page[3] - page[0]) > 0.01, "the weights have changed meanwhile"


ONE_STEP = f"""
import json, sys
sys.path[:0] = [{str(ROOT / "docs")!r}, {str(ROOT)!r}]
import one_step
from runner import api
from runner.record.events import Metrics
from runner.record.journal import read
page = list(one_step.train(api.plan(*sys.argv[1:]).run))
folder = api.run(*sys.argv[1:]).folder
events = [record.event for record in read(folder / "journal.jsonl") if isinstance(record.event, Metrics)]
print(json.dumps([page, [event.values["train/loss"] for event in events if "train/loss" in event.values]]))
"""


@pytest.mark.slow
def test_the_notebook_runs(tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    cells = json.loads((ROOT / "examples" / "compare_two_betas.ipynb").read_text("utf-8"))["cells"]
    code = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    small = (
        f"model.source=path:{tiny_model} dataset=files dataset.train={pairs_file} dataset.validation_fraction=0.4 "
        "dpo.n_epochs=1 evaluation.samples=0 tracking=none"
    )
    variables = quietly() | {"RUNNER_NOTEBOOK_OVERRIDES": small, "PYTHONPATH": str(ROOT)}
    done = warm.run([sys.executable, "-c", code], cwd=tmp_path, env=variables, check=True)
    assert "best by reward accuracy" in done.stdout
    assert len(list(tmp_path.glob("runs/*/report.json"))) == 2
