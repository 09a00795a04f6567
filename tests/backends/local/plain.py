"""What the engine is held against: answers one at a time through transformers' own model, padded and packed nowhere."""

import importlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

from runner.models.chat.tokenizer import TokenRow

ids = st.integers(3, 399)


FILES = [importlib.import_module(f"transformers.models.{name}.modeling_{name}") for name in ("llama", "qwen2")]
ROTATIONS = [file.apply_rotary_pos_emb for file in FILES]
assert not any(rotation.__module__.startswith("runner") for rotation in ROTATIONS)


@contextmanager
def untouched() -> Iterator[None]:
    """Within the block transformers rotates by its own function, whatever a `Scorer` has put there for all models."""
    held = [file.apply_rotary_pos_emb for file in FILES]
    for file, own in zip(FILES, ROTATIONS, strict=True):
        file.apply_rotary_pos_emb = own
    yield
    for file, before in zip(FILES, held, strict=True):
        file.apply_rotary_pos_emb = before


def load(folder: Path, attention: str = "sdpa") -> Any:
    """Return a model as transformers loads it, in float32, without dropout."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation=attention)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if hasattr(module, "attn_dropout"):
            module.attn_dropout.p = 0.0
    return model.eval()


def lively(folder: Path, attention: str = "sdpa") -> Any:
    """Return a model whose attention is far from uniform, so that places and neighbours make a difference."""
    return disturbed(load(folder, attention), 4.0)


def disturbed(model: Any, scale: float = 0.02) -> Any:
    """Move the weights, the same way each time; by default a little, as some training would."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * scale * parameter.abs().mean())
    return model


def adapted(model: Any, targets: str | list[str] = "all-linear", **more: Any) -> Any:
    """Return a model with an adapter that has learned something, the same each time."""
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(model, LoraConfig(r=4, lora_alpha=8, target_modules=targets, task_type="CAUSAL_LM", **more))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                noise = torch.randn(parameter.shape, generator=generator) * 0.1
                parameter.add_(noise) if "magnitude" in name else parameter.copy_(noise)
    return model.eval()


def logps(model: Any, row: TokenRow) -> Tensor:
    """Return the log-probability of each answer's learned tokens, summed, of shape (answers,)."""
    found = []
    for answer, learned in zip(row.answers, row.learned, strict=True):
        whole = torch.tensor(row.prompt + answer)
        counts = torch.tensor([False] * len(row.prompt) + learned)
        said = model(input_ids=whole[None], use_cache=False).logits[0].log_softmax(-1)
        each = said[:-1].gather(1, whole[1:, None])[:, 0]
        found.append(each[counts[1:]].sum())
    return torch.stack(found)


def all_logps(model: Any, rows: Sequence[TokenRow]) -> Tensor:
    """Return the same for several rows, of shape (rows, answers)."""
    with untouched():
        return torch.stack([logps(model, row) for row in rows])


def gradient(model: Any) -> Tensor:
    """Return the gradients of all weights as one vector: the smallest entries of single weights are rounding."""
    gradients = [each.grad.flatten() for each in model.parameters() if each.grad is not None]
    assert gradients
    model.zero_grad()
    return torch.cat(gradients)


def apart(one: Tensor, other: Tensor) -> float:
    """Return how far one vector is from the other, by the length of the other."""
    return ((one - other).norm() / other.norm()).item()


def pair(prompt: Iterable[int], *answers: Iterable[int]) -> TokenRow:
    """Return a row whose every answer token is learned."""
    lists = tuple(list(answer) for answer in answers)
    return TokenRow(list(prompt), lists, tuple([True] * len(each) for each in lists))


AWKWARD = [
    pair(range(10, 30), range(30, 40), range(50, 53)),
    pair([7], [8], [9]),  # one-token answers
    pair([], [8, 9, 10], [8, 11]),  # no prompt: the first token has nothing to be predicted from
    pair([], [8], [9, 10]),  # of which nothing is left to score
    pair(range(10, 14), [5, 6, 7, 8], [5, 6, 7, 9]),  # answers that begin alike
    pair([3, 3, 3], [4, 4], [4, 4]),  # that are alike
    pair(range(3, 90), [5], range(100, 160)),  # that are of different lengths
    TokenRow([5, 6], ([7, 8, 9], [10, 11]), ([False, True, False], [False, True])),  # some tokens read only
    TokenRow([5, 6], ([7, 8], [10, 11]), ([False, False], [True, True])),  # an answer without a learned token
]
"""Rows of every awkward kind."""


@st.composite
def answers(draw: Any) -> tuple[list[int], list[bool]]:
    """Draw an answer and which of its tokens are learned."""
    tokens = draw(st.lists(ids, min_size=1, max_size=12))
    all_learned = [True] * len(tokens)
    return tokens, draw(st.just(all_learned) | st.lists(st.booleans(), min_size=len(tokens), max_size=len(tokens)))


@st.composite
def token_rows(draw: Any, num_answers: int = 2) -> TokenRow:
    """Draw a row: any prompt, and answers that may begin alike."""
    prompt = draw(st.lists(ids, max_size=15))
    drawn = [draw(answers()) for _ in range(num_answers)]
    if draw(st.booleans()):
        start, learned = draw(answers())
        drawn = [(start + tokens, learned + each) for tokens, each in drawn]
    return TokenRow(prompt, tuple(tokens for tokens, _ in drawn), tuple(learned for _, learned in drawn))


def batches(num_answers: int = 2) -> st.SearchStrategy[list[TokenRow]]:
    """Return a strategy for rows that are packed together."""
    return st.lists(token_rows(num_answers), min_size=1, max_size=4)
