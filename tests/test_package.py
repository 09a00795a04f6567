"""The wheel, installed away from the repository, does what the checkout does."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

from runner import __version__
from tests import warm
from tests.execution.test_resume import arguments

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    subprocess.run(build, check=True, capture_output=True, timeout=240)
    (wheel,) = folder.glob("*.whl")
    ZipFile(wheel).extractall(folder / "site")
    return folder / "site"


def command(site: Path, folder: Path, *line: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(site), "PYTHONWARNINGS": "ignore", "COLUMNS": "200"}
    return warm.run([sys.executable, *line], cwd=folder, env=environment)


def test_the_wheel_brings_options_experiments_and_data(installed: Path, tmp_path: Path) -> None:
    where = command(installed, tmp_path, "-c", "import runner; print(runner.__file__)")
    assert where.stdout.startswith(str(installed))
    plan = command(installed, tmp_path, "-m", "runner", "+experiments=three_epochs", "mode=plan")
    assert plan.returncode == 0, plan.stderr
    assert plan.stdout.startswith("three-epochs-")
    checkout = command(ROOT, tmp_path, "-m", "runner", "+experiments=three_epochs", "mode=plan")
    assert checkout.stdout == plan.stdout


def test_the_wheel_trains(installed: Path, tiny_model: Path, pairs_file: Path, tmp_path: Path) -> None:
    process = command(installed, tmp_path, "-m", "runner", *arguments(tiny_model, pairs_file, "dpo.n_epochs=1"))
    assert process.returncode == 0, process.stderr
    assert list(tmp_path.glob("runs/*/model/reference.json"))


def test_the_wheel_says_what_it_is(installed: Path) -> None:
    (described,) = metadata.distributions(name="runner", path=[str(installed)])
    assert described.version == __version__
    assert "Typing :: Typed" in described.metadata.get_all("Classifier", [])
    assert described.metadata["Keywords"]
    assert (installed / "runner" / "py.typed").exists()
