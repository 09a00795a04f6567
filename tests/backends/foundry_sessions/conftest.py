"""A user's folder with data in it, next to the emulated sessions."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.rehearsed import World, sessions_world


@pytest.fixture
def world(tiny_model: Path, tmp_path: Path) -> Iterator[World]:
    with sessions_world(tiny_model, tmp_path) as found:
        yield found
