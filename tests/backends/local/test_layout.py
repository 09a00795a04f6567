"""Sharing the prompt changes no number: the same log-probabilities and gradients as each answer alone."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from runner.backends.local.layout import plain, shared
from runner.backends.local.logps import exact, scores
from runner.tokens import TokenRow

ids = st.integers(3, 399)


@st.composite
def token_rows(draw: Any) -> TokenRow:
    prompt = draw(st.lists(ids, min_size=1, max_size=20))
    answers = tuple(draw(st.lists(ids, min_size=1, max_size=15)) for _ in range(2))
    return TokenRow(prompt, answers, tuple([True] * len(answer) for answer in answers))


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def model(request: pytest.FixtureRequest, tiny_models: Any) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_models(request.param)).eval()


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(row=token_rows())
def test_shared_and_plain_layout_agree(model: Any, row: TokenRow) -> None:
    with torch.no_grad():
        torch.testing.assert_close(
            scores(model, row, shared).logps, scores(model, row, plain).logps, rtol=1e-4, atol=1e-4
        )


def test_the_exactness_check_passes_for_these_models_and_fails_for_one_that_looks_at_places_in_the_row(
    model: Any,
) -> None:
    row = TokenRow([5, 6, 7], ([8, 9], [10, 11, 12]), ([True] * 2, [True] * 3))
    assert exact(model, row)

    class Sideways(torch.nn.Module):
        """Ignores position ids and mask, as an architecture of another kind would."""

        device = torch.device("cpu")

        def forward(self, input_ids: Any, position_ids: Any, attention_mask: Any, **rest: Any) -> Any:
            return model(input_ids=input_ids, **rest)

    assert not exact(Sideways(), row)


def test_a_shared_prompt_stands_once_and_answers_begin_where_it_ends() -> None:
    (laid,) = shared(TokenRow([5, 6], ([7, 8], [9]), ([True, True], [True])))
    assert laid.ids.tolist() == [[5, 6, 7, 8, 9]]
    assert laid.positions.tolist() == [[0, 1, 2, 3, 2]]
    assert laid.predict.tolist() == [1, 2, 1]
    assert laid.labels.tolist() == [7, 8, 9]
    assert laid.answer.tolist() == [0, 0, 1]
    assert laid.mask is not None
    assert laid.mask[0, 0, 4].tolist() == [True, True, False, False, True]


def test_tokens_that_are_not_learned_are_read_but_not_scored() -> None:
    (laid,) = shared(TokenRow([5], ([6, 7, 8],), ([False, True, False],)))
    assert laid.ids.tolist() == [[5, 6, 7, 8]]
    assert laid.labels.tolist() == [7]
    assert laid.mask is None
