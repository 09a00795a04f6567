from tests.tracking.browsing import browser  # noqa: F401 - a fixture
