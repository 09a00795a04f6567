"""Rows packed together get the log-probabilities and gradients that plain transformers gives each answer alone."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from torch import Tensor

from runner.backends.local.scoring import scorer as scorer_module
from runner.backends.local.scoring.scorer import Scorer, TokenLogps, exact
from runner.models.chat.tokenizer import TokenRow
from tests.backends.local import plain
from tests.backends.local.plain import AWKWARD, batches, pair

pytestmark = pytest.mark.slow

TARGETS = {"gpt2": ["c_attn", "c_proj", "c_fc"]}
TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}
FEW = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

Make = Callable[[], Any]


@pytest.fixture(scope="module", params=["llama", "qwen2", "gpt2"])
def architecture(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module", params=["lora", "full"])
def make(request: pytest.FixtureRequest, architecture: str, tiny_models: Any) -> Make:
    """Return what loads the model, with an adapter that has learned something, or all weights to be learned."""
    folder, lora = tiny_models(architecture), request.param == "lora"

    def load() -> Any:
        model = plain.lively(folder)
        return plain.adapted(model, TARGETS.get(architecture, "all-linear")) if lora else model

    return load


@pytest.fixture(scope="module")
def both(make: Make) -> tuple[Any, Scorer]:
    """The model as transformers and peft have it, and another one packed."""
    return make(), Scorer(make())


@FEW
@given(rows=batches() | batches(1))
def test_log_probabilities_are_those_of_each_answer_alone(both: tuple[Any, Scorer], rows: list[TokenRow]) -> None:
    model, scorer = both
    with torch.no_grad():
        scores = scorer(rows)
        torch.testing.assert_close(scores.logps, plain.all_logps(model, rows), **TOLERANCE)
    scored = [[sum(learned[0 if row.prompt else 1 :]) for learned in row.learned] for row in rows]
    assert scores.num_tokens.tolist() == scored
    assert (scores.num_correct <= scores.num_tokens).all()


def test_gradients_are_those_of_each_answer_alone(both: tuple[Any, Scorer]) -> None:
    model, scorer = both
    weights = torch.linspace(-1, 1, 2 * len(AWKWARD)).view(-1, 2)
    (plain.all_logps(model, AWKWARD) * weights).sum().backward()
    (scorer(AWKWARD).logps * weights).sum().backward()
    assert plain.apart(plain.gradient(scorer.model), plain.gradient(model)) < 1e-4


def test_a_row_says_the_same_whatever_lies_next_to_it(both: tuple[Any, Scorer]) -> None:
    _, scorer = both
    with torch.no_grad():
        together = scorer(AWKWARD).logps
        for row, found in zip(AWKWARD, together, strict=True):
            torch.testing.assert_close(scorer([row]).logps[0], found, **TOLERANCE)


def test_tokens_that_greedy_decoding_gets_right_are_counted(both: tuple[Any, Scorer]) -> None:
    model, scorer = both
    prompt = list(range(20, 30))
    with torch.no_grad():
        likeliest = model(input_ids=torch.tensor([prompt])).logits[0, -1].argmax().item()
        scores = scorer([pair(prompt, [likeliest], [likeliest + 1 if likeliest < 399 else 3])])
    assert scores.num_correct.tolist() == [[1.0, 0.0]]


def test_these_models_are_exact(make: Make) -> None:
    assert exact(Scorer(make()), AWKWARD)


def test_unpacked_scores_are_those_of_each_answer_alone(make: Make) -> None:
    model = make()
    scorer = Scorer(make(), packed=False)
    with torch.no_grad():
        torch.testing.assert_close(scorer(AWKWARD).logps, plain.all_logps(model, AWKWARD), **TOLERANCE)


def test_a_models_packed_attention_is_removed_again(make: Make) -> None:
    model, other = make(), make()
    scorer = Scorer(other).unpacked()
    assert not any("forward" in vars(module) for module in other.modules())
    with torch.no_grad():
        assert torch.equal(scorer(AWKWARD).logps, Scorer(model, packed=False)(AWKWARD).logps)


def test_a_released_model_generates_what_the_plain_one_does_and_then_scores_again(make: Make) -> None:
    model, scorer = make(), Scorer(make())
    rows = torch.tensor([[5, 6, 7, 8], [2, 2, 9, 10]])
    seen = torch.tensor([[1, 1, 1, 1], [0, 0, 1, 1]])
    asked = {"input_ids": rows, "attention_mask": seen, "max_new_tokens": 12, "do_sample": False, "pad_token_id": 2}
    with torch.no_grad():
        before = scorer(AWKWARD).logps
    with scorer.released():
        found = scorer.model.generate(**asked)
    assert torch.equal(found, model.generate(**asked))
    with torch.no_grad():
        assert torch.equal(scorer(AWKWARD).logps, before)


def test_what_bfloat16_rounds_in_an_answer_of_one_token_is_no_other_layout(tiny_models: Any) -> None:
    model = plain.lively(tiny_models("qwen2")).to(torch.bfloat16)
    prompts = [[(37 * row + 11 * place) % 397 + 3 for place in range(9 + row)] for row in range(6)]
    with torch.no_grad():
        likeliest = [int(model(input_ids=torch.tensor([each])).logits[0, -1].argmax()) for each in prompts]
        rows = [pair(prompt, [token], [token]) for prompt, token in zip(prompts, likeliest, strict=True)]
        alone = Scorer(model, packed=False)(rows).logps
        scorer = Scorer(model)
        assert (scorer(rows).logps - alone).abs().max() > 0.1
    assert exact(scorer, rows)


def test_a_model_without_segments_is_not_exact(tiny_model: Any) -> None:
    class Unaware(torch.nn.Module):
        """Takes no keywords that it does not know."""

        def __init__(self, inner: Any) -> None:
            super().__init__()
            self.inner, self.config, self.dtype = inner, inner.config, inner.dtype
            self.device, self.get_output_embeddings = inner.device, inner.get_output_embeddings
            self.set_attn_implementation = inner.set_attn_implementation

        def forward(self, input_ids: Any, position_ids: Any, use_cache: bool, logits_to_keep: Any) -> Any:
            return self.inner(input_ids=input_ids, logits_to_keep=logits_to_keep)

    assert not exact(Scorer(Unaware(plain.lively(tiny_model))), AWKWARD[:2])


def test_a_model_that_looks_at_places_in_the_pack_is_not_exact(tiny_model: Any) -> None:
    model = plain.lively(tiny_model)
    scorer, whole = Scorer(model), model.forward
    assert exact(scorer, AWKWARD)
    model.forward = lambda position_ids, **rest: whole(**rest)
    assert not exact(scorer, AWKWARD)


def by_autograd(hidden: Tensor, weight: Tensor, labels: Tensor) -> Tensor:
    return (hidden @ weight.T).log_softmax(-1).gather(1, labels[:, None])[:, 0]


@pytest.mark.parametrize("count", [1, 2, 7, 30])
@pytest.mark.parametrize("chunk", [1, 7, 50, 64])
def test_log_probabilities_in_pieces_are_those_of_the_whole(
    chunk: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scorer_module, "CHUNK", chunk)
    generator = torch.Generator().manual_seed(count)
    hidden = torch.randn(count, 16, generator=generator).requires_grad_()
    weight = torch.randn(50, 16, generator=generator)
    labels = torch.randint(50, (count,), generator=generator)
    above = torch.randn(count, generator=generator)
    ours, correct = TokenLogps.apply(hidden, weight, labels)
    exactly = hidden.detach().double().requires_grad_()
    theirs = by_autograd(exactly, weight.double(), labels)
    torch.testing.assert_close(ours.double(), theirs, rtol=1e-5, atol=1e-5)
    assert correct.tolist() == ((hidden @ weight.T).argmax(-1) == labels).float().tolist()
    (ours * above).sum().backward()
    (theirs * above.double()).sum().backward()
    assert hidden.grad is not None
    assert exactly.grad is not None
    torch.testing.assert_close(hidden.grad.double(), exactly.grad, rtol=1e-4, atol=1e-5)


def test_log_probabilities_hold_where_logits_are_large() -> None:
    hidden = torch.tensor([[200.0, 0.0], [0.0, -300.0]]).requires_grad_()
    found, _ = TokenLogps.apply(hidden, torch.eye(2), torch.tensor([1, 1]))
    assert found.tolist() == [-200.0, -300.0]
    found.sum().backward()
    assert hidden.grad is not None
    assert hidden.grad.tolist() == [[-1.0, 1.0], [-1.0, 1.0]]


def test_noise_on_embeddings_is_as_large_as_neftune_says_and_for_training_only(tiny_model: Any) -> None:
    model = plain.lively(tiny_model)
    scorer = Scorer(model, noise=5.0)
    row = pair(range(10, 30), range(30, 40), range(50, 53))
    short = pair([5], [6], [7])
    seen: list[Tensor] = []

    def look(*given: Any) -> None:
        seen.append(given[1][0] if len(given) == 2 else given[2])

    first = model.model.layers[0].register_forward_pre_hook(look)
    with torch.no_grad():
        silent = scorer([row, short]).logps
        assert torch.equal(silent, Scorer(plain.lively(tiny_model))([row, short]).logps)
        model.train()
        torch.manual_seed(0)
        assert not torch.equal(scorer([row, short]).logps, silent)
    first.remove()
    noise = (seen[1] - seen[0])[0]
    bound = 5.0 / (torch.tensor([30.0] * 33 + [2.0] * 3) * noise.shape[-1]).sqrt()
    largest = noise.abs().amax(-1)
    assert (largest <= bound * 1.0001).all()
    assert (largest >= bound * 0.7).all()
    assert noise.mean().abs() < 0.01


def test_the_output_layer_is_itself_where_the_model_is_released(tiny_model: Any) -> None:
    scorer = Scorer(plain.adapted(plain.lively(tiny_model)))
    scorer(AWKWARD[:1])
    with scorer.released():
        assert "forward" not in vars(scorer.head)
