from pathlib import Path

import pytest

from tests.hosted.emulated import cloud, make  # noqa: F401 - fixtures
from tests.promotion.answering import Place
from tests.tracking.conftest import database  # noqa: F401 - a fixture


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Place:
    """A folder with two runs that answer `No.`, of one request, and one that answers `Wrap it in cloth.`."""
    made = Place.made(tmp_path_factory.mktemp("place"), tiny_model)
    made.run("no", "no")
    made.run("seed", "no", "seed=7")
    made.run("cloth", "cloth")
    return made
