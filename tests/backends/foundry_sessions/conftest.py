"""A user's folder with data in it, next to the emulated sessions, whose tokens are in none of its files afterwards."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.backends.rehearsed import BASE, World, write_pairs


@pytest.fixture
def world(tiny_model: Path, tmp_path: Path) -> Iterator[World]:
    pytest.importorskip("azure.identity")
    from tests.emulator.sessions import SessionsEmulator

    write_pairs(tmp_path)
    with SessionsEmulator({BASE: tiny_model}) as service:
        yield World(tmp_path, service, tiny_model, "foundry_sessions", "session")
        assert service.violations == []
        assert service.live == []
        tokens = [token.encode() for token in service.identity.issued]
        files = [path for path in tmp_path.rglob("*") if path.is_file()]
        assert [path for path in files if any(token in path.read_bytes() for token in tokens)] == []
