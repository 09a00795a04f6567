"""Emulators whose jobs take a tenth of a second, and what an undisturbed run measures."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests import stores
from tests.emulator import Emulator, Script
from tests.hosted.rehearsal import (
    DEPLOYED,
    Make,
    Metrics,
    carry_out,
    openapi,
    planned,
    secrets_in,
    write_data,
)


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Make]:
    """Start emulators; the environment leads to the last one. No secret may be left in any file."""
    service = pytest.importorskip("runner.backends.foundry.connect")
    monkeypatch.setenv("RUNNER_CACHE", str(tmp_path / "cache"))
    write_data(tmp_path)
    stores.put_empty(tmp_path)

    def start(kind: type[Emulator] = Emulator, **options: Any) -> Emulator:
        cloud = stack.enter_context(kind(openapi=openapi(), **options))
        cloud.script = Script(validating_seconds=0.02, queued_seconds=0.03, running_seconds=0.05)
        cloud.file_seconds = cloud.deployment_seconds = 0.03
        for name, value in cloud.environment().items():
            monkeypatch.setenv(name, value)
        return cloud

    with ExitStack() as stack:
        yield start
        service.close()
    assert secrets_in(tmp_path) == []


@pytest.fixture
def cloud(make: Make) -> Emulator:
    return make()


@pytest.fixture
def undisturbed(make: Make, tmp_path: Path) -> Metrics:
    """What a run without any fault measures, on a service of its own; found out once."""
    if not _UNDISTURBED:
        make()
        ended = carry_out(planned(tmp_path, tmp_path / "undisturbed", DEPLOYED))
        assert ended.code == 0, ended.message
        _UNDISTURBED.append(ended.metrics)
    return _UNDISTURBED[0]


_UNDISTURBED: list[Metrics] = []
