from tests.hosted.emulated import cloud, make  # noqa: F401 - fixtures
