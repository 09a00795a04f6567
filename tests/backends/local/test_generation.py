"""Answers are those of the model's own `generate`, or drawn as softmax says, whatever is computed next to them."""

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from runner.backends.local import generation
from runner.backends.local.generate import replies
from runner.backends.local.generation import Answer, sample
from runner.backends.local.generation.sampling import Row, draw
from runner.data.rows import Message, Prompt
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.samples import Reply, Sampling
from tests.backends.local import plain
from tests.backends.local.parallel.test_ranks import Begin, begun
from tests.tiny import TEXT

PLAIN_CACHE, OTHER_CACHE = ("llama", "qwen2", "gpt2"), ("mistral", "gemma2")
Models = Callable[[str], Path]


def prompt(characters: int) -> Prompt:
    """Return a prompt of so many characters."""
    return Prompt((Message(role="user", content=(TEXT * (1 + characters // len(TEXT)))[:characters]),))


PROMPTS = [prompt(size) for size in (40, 7, 41, 300, 8, 90, 42)]


def alone(model: Any, tokenizer: ChatTokenizer, asked: Prompt, limit: int) -> list[int]:
    """Return the greedy answer that `generate` gives one prompt by itself, with its end."""
    ids = tokenizer.encode_prompt(asked)
    whole = model.generate(torch.tensor([ids]), max_new_tokens=limit, do_sample=False, pad_token_id=0)
    found: list[int] = whole[0, len(ids) :].tolist()
    return found


def ids_of(found: Sequence[Sequence[Answer]]) -> list[list[list[int]]]:
    return [[answer.ids for answer in each] for each in found]


def disturbed(folder: Path) -> Any:
    """Return a model whose likeliest tokens differ from place to place."""
    return plain.disturbed(plain.load(folder, "eager" if "gemma2" in folder.name else "sdpa"), 2.0)


@pytest.mark.parametrize("architecture", ["llama", "gemma2"], ids=["by cohorts", "by generate"])
def test_each_answer_is_reported_once_when_it_has_ended_and_not_when_all_have(
    architecture: str, tiny_models: Models
) -> None:
    model, tokenizer = plain.load(tiny_models(architecture), "eager"), ChatTokenizer(tiny_models(architecture))
    prompts, heard = [tokenizer.encode_prompt(each) for each in PROMPTS], list[tuple[int, int, int]]()
    wanted = Sampling(max_new_tokens=12, per_prompt=2, temperature=1.0)

    def finished(place: int, number: int, row: Row) -> None:
        assert row.done
        heard.append((place, number, len(row.ids)))

    found = generation.sample_tokens(model, prompts, wanted, rows_at_once=4, finished=finished)
    expected = [(place, number, len(row.ids)) for place, rows in enumerate(found) for number, row in enumerate(rows)]
    assert sorted(heard) == expected
    assert heard != expected, "in the order in which they ended: the longest prompts come first"


@pytest.mark.parametrize("architecture", [*PLAIN_CACHE, *OTHER_CACHE])
def test_greedy_answers_are_those_of_generate(architecture: str, tiny_models: Models) -> None:
    model, tokenizer = disturbed(tiny_models(architecture)), ChatTokenizer(tiny_models(architecture))
    expected = [[alone(model, tokenizer, each, 20)] for each in PROMPTS]
    if architecture in PLAIN_CACHE:  # the others see the template's last words alone
        assert len({tuple(each) for (each,) in expected}) > 3, "a model that says the same to all shows nothing"
    assert ids_of(sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=20))) == expected


def test_greedy_answers_follow_the_adapter_and_its_absence(tiny_model: Path) -> None:
    bare, tokenizer = disturbed(tiny_model), ChatTokenizer(tiny_model)
    without = [[alone(bare, tokenizer, each, 12)] for each in PROMPTS]
    model = plain.adapted(bare)
    adapted = [[alone(model, tokenizer, each, 12)] for each in PROMPTS]
    assert adapted != without
    assert ids_of(sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=12))) == adapted
    with model.disable_adapter():
        assert ids_of(sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=12))) == without


@pytest.mark.parametrize("architecture", [*PLAIN_CACHE, *OTHER_CACHE])
def test_a_model_decodes_in_cohorts_if_all_its_layers_see_all_that_came_before(
    architecture: str, tiny_models: Models
) -> None:
    model = disturbed(tiny_models(architecture))
    own = model.config._attn_implementation
    assert (generation.bytes_per_token(model) > 0) == (architecture in PLAIN_CACHE)
    assert model.config._attn_implementation == own


def test_a_model_that_looks_at_tokens_in_another_way_does_not_decode_in_cohorts(tiny_model: Path) -> None:
    model = plain.lively(tiny_model)
    attention = model.model.layers[1].self_attn
    attention.register_forward_hook(lambda _, __, out: (out[0] + out[0].mean(1, keepdim=True), out[1]))
    assert generation.bytes_per_token(model) == 0


def test_a_penalty_that_the_model_asks_for_holds_for_greedy_answers(tiny_model: Path) -> None:
    model, tokenizer = disturbed(tiny_model), ChatTokenizer(tiny_model)
    before = ids_of(sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=12)))
    model.generation_config.repetition_penalty = 1.5
    expected = [[alone(model, tokenizer, each, 12)] for each in PROMPTS]
    assert expected != before
    assert ids_of(sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=12))) == expected


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "mistral"])
def test_log_probabilities_are_those_of_a_whole_forward_pass(
    architecture: str, temperature: float, tiny_models: Models
) -> None:
    model, tokenizer = disturbed(tiny_models(architecture)), ChatTokenizer(tiny_models(architecture))
    found = sample(
        model,
        tokenizer,
        PROMPTS,
        Sampling(max_new_tokens=10, per_prompt=2, temperature=temperature, top_p=0.9, seed=4),
    )
    for asked, each in zip(PROMPTS, found, strict=True):
        start = tokenizer.encode_prompt(asked)
        for answer in each:
            with torch.no_grad():
                logits = model(torch.tensor([start + answer.ids]), use_cache=False).logits[0]
            logps = (logits / (temperature or 1.0)).log_softmax(-1)[len(start) - 1 : -1]
            expected = logps.gather(1, torch.tensor(answer.ids)[:, None])[:, 0]
            torch.testing.assert_close(torch.tensor(answer.logps), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_an_answer_depends_on_seed_prompt_and_number_alone(architecture: str, tiny_models: Models) -> None:
    model, tokenizer = disturbed(tiny_models(architecture)), ChatTokenizer(tiny_models(architecture))

    def drawn(prompts: list[Prompt], per_prompt: int = 3, seed: int = 1, **more: Any) -> list[list[list[int]]]:
        wanted = Sampling(max_new_tokens=12, per_prompt=per_prompt, temperature=1.0, seed=seed)
        return ids_of(sample(model, tokenizer, prompts, wanted, **more))

    found = drawn(PROMPTS)
    assert all(len({tuple(ids) for ids in each}) == 3 for each in found)
    assert drawn(PROMPTS) == found
    assert drawn(PROMPTS[::-1]) == found[::-1]
    assert drawn(PROMPTS[3:4]) == found[3:4]
    assert drawn(PROMPTS, memory=0) == found
    assert drawn(PROMPTS, rows_at_once=2) == found
    assert drawn(PROMPTS, per_prompt=5) != found
    assert [each[:3] for each in drawn(PROMPTS, per_prompt=5)] == found
    assert all(one != other for one, other in zip(drawn(PROMPTS, seed=2), found, strict=True))


def test_first_tokens_come_as_often_as_softmax_says(tiny_model: Path) -> None:
    model, tokenizer, count = plain.disturbed(plain.load(tiny_model), 6.0), ChatTokenizer(tiny_model), 4000
    (found,) = sample(
        model, tokenizer, [PROMPTS[0]], Sampling(max_new_tokens=1, per_prompt=count, temperature=0.8, seed=3)
    )
    start = tokenizer.encode_prompt(PROMPTS[0])
    with torch.no_grad():
        expected = count * (model(torch.tensor([start])).logits[0, -1] / 0.8).softmax(-1)
    counted = torch.bincount(torch.tensor([answer.ids[0] for answer in found]), minlength=len(expected))
    often = expected >= 5
    assert 10 < often.sum() < len(expected), "the distribution is to be neither flat nor a single token"
    both = [torch.cat((each[often], each[~often].sum()[None])) for each in (counted.float(), expected)]
    chi_squared = ((both[0] - both[1]) ** 2 / both[1]).sum()
    freedom = len(both[0]) - 1
    assert chi_squared < freedom + 4 * (2 * freedom) ** 0.5


def shares(logits: Tensor, top_p: float, temperature: float = 1.0) -> Tensor:
    """Return how often each token comes for evenly spread numbers."""
    numbers = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    tokens, _ = draw(logits.expand(1000, -1), numbers, temperature, top_p)
    return torch.bincount(tokens, minlength=len(logits)) / 1000


def test_top_p_keeps_the_fewest_tokens_that_have_it_together() -> None:
    logits = torch.tensor([0.15, 0.5, 0.05, 0.3]).log()
    torch.testing.assert_close(shares(logits, 1.0), torch.tensor([0.15, 0.5, 0.05, 0.3]))
    torch.testing.assert_close(shares(logits, 0.7), torch.tensor([0.0, 0.625, 0.0, 0.375]))
    torch.testing.assert_close(shares(logits, 0.4), torch.tensor([0.0, 1.0, 0.0, 0.0]))
    wide = torch.linspace(0.01, 0, 1000)  # so flat that half of it takes many more tokens than are looked at first
    kept = shares(wide, 0.5)
    assert kept[:497].sum() > 0.99
    assert kept[500:].sum() == 0


def test_temperature_sharpens() -> None:
    logits = torch.tensor([0.0, 1.0])
    torch.testing.assert_close(shares(logits, 1.0, 0.5)[1], (2 * logits).softmax(-1)[1], rtol=0, atol=1e-3)


@pytest.fixture
def computed() -> Iterator[Callable[[Any], list[int]]]:
    """Return a function that notes how many tokens each call of a model computes."""
    hooks = []

    def watch(model: Any) -> list[int]:
        sizes: list[int] = []
        hook = model.register_forward_pre_hook(
            lambda _, __, given: sizes.append(given["input_ids"].numel()), with_kwargs=True
        )
        hooks.append(hook)
        return sizes

    yield watch
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("num_samples", [1, 3])
def test_no_token_is_computed_twice_and_none_is_padding_or_follows_an_end(
    num_samples: int, tiny_model: Path, computed: Callable[[Any], list[int]]
) -> None:
    model, tokenizer = disturbed(tiny_model), ChatTokenizer(tiny_model)
    model.generation_config.eos_token_id = list(range(0, 400, 10))
    assert generation.bytes_per_token(model)
    sizes = computed(model)
    found = sample(
        model,
        tokenizer,
        PROMPTS,
        Sampling(max_new_tokens=30, per_prompt=num_samples, temperature=1.0),
        rows_at_once=6,
    )
    lengths = {len(answer.ids) for each in found for answer in each}
    assert len(lengths) > 3, "answers are to end at different places"
    prompts = sum(len(tokenizer.encode_prompt(each)) for each in PROMPTS)
    assert sum(sizes) == prompts + sum(len(answer.ids) - 1 for each in found for answer in each)


def test_rows_wait_until_there_is_room(tiny_model: Path, computed: Callable[[Any], list[int]]) -> None:
    model, tokenizer = disturbed(tiny_model), ChatTokenizer(tiny_model)
    per_token = generation.bytes_per_token(model)
    lengths = sorted(len(tokenizer.encode_prompt(each)) for each in PROMPTS)
    sizes = computed(model)
    sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=4))
    assert sizes == [sum(lengths), 7, 7, 7]
    sizes.clear()
    sample(model, tokenizer, PROMPTS, Sampling(max_new_tokens=4), memory=(lengths[-1] + 4) * per_token)
    assert sizes[:4] == [lengths[-1], 1, 1, 1]
    assert len(sizes) > 4


@pytest.mark.parametrize("architecture", ["llama", "mistral"])
def test_an_answer_ends_at_any_of_the_models_ends(architecture: str, tiny_models: Models) -> None:
    model, tokenizer = disturbed(tiny_models(architecture)), ChatTokenizer(tiny_models(architecture))
    model.generation_config.eos_token_id = None
    ((whole,),) = sample(model, tokenizer, PROMPTS[:1], Sampling(max_new_tokens=12))
    assert (len(whole.ids), whole.ended) == (12, False)
    first = {token: whole.ids.index(token) for token in whole.ids}
    assert len(first) > 2
    (early, place), (late, _) = sorted(first.items(), key=lambda each: each[1])[1:3]
    for ends in (early, [late, early]):
        model.generation_config.eos_token_id = ends
        ((cut,),) = sample(model, tokenizer, PROMPTS[:1], Sampling(max_new_tokens=12))
        assert (cut.ids, cut.ended) == (whole.ids[: place + 1], True)
        assert cut.text == tokenizer.decode(whole.ids[:place]).strip()
        assert len(cut.logps) == len(cut.ids)


def test_nothing_is_asked_or_allowed(tiny_model: Path) -> None:
    model, tokenizer = plain.load(tiny_model), ChatTokenizer(tiny_model)
    assert sample(model, tokenizer, [], Sampling(max_new_tokens=5)) == []
    assert sample(model, tokenizer, PROMPTS[:1], Sampling(max_new_tokens=0)) == [[Answer("", False, [], [])]]


def test_greedy_samples_of_a_prompt_are_one_answer(tiny_model: Path) -> None:
    model, tokenizer = disturbed(tiny_model), ChatTokenizer(tiny_model)
    ((one, other),) = sample(model, tokenizer, PROMPTS[:1], Sampling(max_new_tokens=5, per_prompt=2))
    assert one == other
    assert replies(model, tokenizer, PROMPTS[:1], Sampling(max_new_tokens=5)) == [[Reply(one.text, one.ended)]]


RANKS = """
import json, sys
from pathlib import Path
from types import SimpleNamespace

from runner import distributed
from runner.backends.local import generate, model
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.samples import Sampling
from tests.backends.local.test_generation import PROMPTS

folder = Path(sys.argv[1])
loaded, computed = model.load(folder), []
loaded.register_forward_pre_hook(lambda _, __, given: computed.append(given["input_ids"].numel()), with_kwargs=True)
with distributed.joined("a plan") as group:
    engine = SimpleNamespace(group=group, sharded=False, tokenizer=ChatTokenizer(folder))
    found = generate.model_replies(
        engine, loaded, PROMPTS, Sampling(max_new_tokens=6, per_prompt=2, temperature=1.0)
    )
    Path(f"rank-{group.rank.rank}.json").write_text(json.dumps([found, sum(computed)]))
"""


@pytest.mark.slow
def test_ranks_share_the_prompts_and_all_get_all_answers(tiny_model: Path, tmp_path: Path) -> None:
    def reported(begin: Begin, count: int) -> list[tuple[Any, int]]:
        command = begin(f"{count}", count, str(tiny_model), script=RANKS)
        said = command.end()
        assert not any(command.codes), said
        return [json.loads((command.folder / f"rank-{rank}.json").read_text()) for rank in range(count)]

    with begun(tmp_path) as begin:
        ((expected, all_tokens),), two = reported(begin, 1), reported(begin, 2)
    expected_texts = [[each[0] for each in answers] for answers in expected]
    for found, tokens in two:
        assert [[each[0] for each in answers] for answers in found] == expected_texts
        assert tokens < 0.75 * all_tokens
