from tests.hosted.emulated import cloud, make, undisturbed  # noqa: F401 - fixtures
