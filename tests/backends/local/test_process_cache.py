"""What trials in one process share, and that none of them changes it for the others."""

from typing import Any

import pytest
import torch

from runner.backends.local import process_cache


@pytest.fixture(autouse=True)
def nothing_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_cache, "_held", {})


def test_the_latest_of_a_kind_is_made_once() -> None:
    made: list[str] = []

    def make(name: str) -> str:
        made.append(name)
        return name

    assert [process_cache.latest("base", key, lambda key=key: make(key)) for key in ("a", "a", "b", "a")] == [
        "a",
        "a",
        "b",
        "a",
    ]
    assert made == ["a", "b", "a"]
    assert process_cache.latest("tokens", "a", lambda: make("other")) == "other"


def test_the_one_before_is_given_up_before_the_next_is_made() -> None:
    process_cache.latest("base", 1, object)

    def make() -> Any:
        assert process_cache._held == {}
        return object()

    process_cache.latest("base", 2, make)


def test_a_borrowed_model_shares_weights_and_keeps_its_layers_to_itself() -> None:
    whole = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4), torch.nn.Dropout(0.5))
    copy = process_cache.borrowed(whole)
    assert [id(each) for each in copy.parameters()] == [id(each) for each in whole.parameters()]
    assert [id(each) for each in copy.buffers()] == [id(each) for each in whole.buffers()]
    copy[0], copy[2].p = torch.nn.Identity(), 0.0
    assert isinstance(whole[0], torch.nn.Linear)
    assert whole[2].p == 0.5
