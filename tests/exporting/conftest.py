"""Runs that several files export, made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.exporting import runs


@pytest.fixture(scope="session")
def tuned(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return the folder of a finished run of an architecture."""
    return cache(lambda architecture: runs.make_run(tmp_path_factory.mktemp(architecture), architecture))
