from tests.hosted.emulated import cloud, make, undisturbed  # noqa: F401 - fixtures
from tests.sweeps.conftest import here  # noqa: F401 - a fixture
from tests.tracking.browsing import browser  # noqa: F401 - a fixture
