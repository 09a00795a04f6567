"""Torch computes with one thread in each test, whatever the test before it has set."""

import pytest
import torch


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Threads of torch wait for each other in each small operation: on busy cores a tiny model is ten times slower."""
    torch.set_num_threads(1)
