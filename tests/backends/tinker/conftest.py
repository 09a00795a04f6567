"""A user's folder with data in it, next to the emulated service."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.rehearsed import BASE, World, write_pairs


@pytest.fixture
def world(tiny_model: Path, tmp_path: Path) -> Iterator[World]:
    pytest.importorskip("tinker")
    from tests.emulator.tinker import TinkerEmulator

    write_pairs(tmp_path)
    with TinkerEmulator({BASE: tiny_model}) as service:
        yield World(tmp_path, service, tiny_model, "tinker", "tinker")
        assert service.violations == []
        assert service.live == []
