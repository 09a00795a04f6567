import pytest

from tests import stores
from tests.hosted.emulated import cloud, make, undisturbed  # noqa: F401 - fixtures
from tests.sweeps.conftest import here  # noqa: F401 - a fixture
from tests.tracking.browsing import browser  # noqa: F401 - a fixture


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Return the address of an empty MLflow store: creating its tables takes seconds."""
    folder = tmp_path_factory.mktemp("mlflow")
    stores.put_empty(folder)
    return f"sqlite:///{folder}/mlflow.db"
