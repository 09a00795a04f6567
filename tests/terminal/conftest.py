from tests.sweeps.conftest import here  # noqa: F401 - a fixture
