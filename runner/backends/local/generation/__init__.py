"""Answers sampled token by token, many at a time: prompts computed once and unpadded, rows that come and go."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from runner import distributed
from runner.backends.local.generation.cohort import Cohort, attending, forward
from runner.backends.local.generation.sampling import Row, Sampling, extend
from runner.data.rows import Prompt
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.samples import Sampling as Wanted

ROWS = 64
"""Rows computed at once: on a CPU a row's share of a product falls to 64 rows (1.8 ms a token) and hardly after."""
COHORT_ROWS, PADDING = 16, 1 / 8
"""The most rows of a cohort, and the share of its longest prompt and answer that a shorter prompt may leave empty."""
PROMPT_TOKENS = 2048
"""Tokens of prompts computed in a step: they fill a product, and more only take memory."""


class Answer(NamedTuple):
    """An answer: its text without the end, whether it ended by itself, its token ids with the end, and of each id the
    log-probability at the temperature (at 1 for a greedy answer).
    """

    text: str
    ended: bool
    ids: list[int]
    logps: list[float]


def sample(
    model: PreTrainedModel, tokenizer: ChatTokenizer, prompts: Sequence[Prompt], wanted: Wanted, *,
    memory: int | None = None, rows_at_once: int = ROWS,
) -> list[list[Answer]]:  # fmt: skip
    """Return `wanted.per_prompt` answers to each prompt, of at most `wanted.max_new_tokens` tokens.

    At temperature 0 they are greedy, else drawn from the `top_p` nucleus of softmax(logits / temperature). An answer
    is decided by seed, prompt and the number of the sample, not by the other prompts. `memory` bounds the bytes of
    the key/value cache, by default to half of what is free; one answer is always computed.
    """
    ids = [tokenizer.encode_prompt(prompt) for prompt in prompts]
    found = sample_tokens(model, ids, wanted, memory=memory, rows_at_once=rows_at_once)
    return [[_answer(tokenizer, row) for row in rows] for rows in found]


@torch.no_grad()
def sample_tokens(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], wanted: Wanted, *, memory: int | None = None,
    rows_at_once: int = ROWS, finished: Callable[[int, int, Row], None] | None = None,
) -> list[list[Row]]:  # fmt: skip
    """Return the same answers to prompts that are token ids, as token ids with their log-probabilities.

    `finished` hears of each answer as soon as it is whole: the place of its prompt, its number, the answer.
    """
    model = model.get_base_model() if hasattr(model, "get_base_model") else model
    how = Sampling(wanted.max_new_tokens, frozenset(ends(model)), wanted.temperature, wanted.top_p, wanted.seed)
    distinct = wanted.per_prompt if how.temperature else 1
    rows = [[Row(each, number, how) for number in range(distinct)] for each in prompts]
    model.eval()
    if rows and how.max_new_tokens:
        where = {row: (place, number) for place, each in enumerate(rows) for number, row in enumerate(each)}

        def done(row: Row) -> None:
            if finished is not None:
                finished(*where[row], row)

        _fill(model, sorted(rows, key=lambda each: -len(each[0].prompt)), how, memory, rows_at_once, done)
    return [each * (wanted.per_prompt // distinct) for each in rows]


def ends(model: PreTrainedModel) -> list[int]:
    """Return the ids that end an answer."""
    found = model.generation_config.eos_token_id
    return list(found) if isinstance(found, list | tuple) else [] if found is None else [found]


def _answer(tokenizer: ChatTokenizer, row: Row) -> Answer:
    said = row.ids[:-1] if row.ended else row.ids
    return Answer(tokenizer.decode(said).strip(), row.ended, row.ids, row.logps)


def _fill(
    model: PreTrainedModel, prompts: list[list[Row]], how: Sampling, memory: int | None, rows_at_once: int,
    done: Callable[[Row], None],
) -> None:  # fmt: skip
    """Compute the answers of all rows; the longest prompts come first, and `done` hears of each row that is."""
    per_token = 0 if _is_processed(model, how) else bytes_per_token(model)
    if not per_token:
        _by_generate(model, [row for each in prompts for row in each], how, done)
        return
    room = (free_memory(model.device) // 2 if memory is None else memory) // per_token
    waiting, running = deque(_cohorts(prompts, how, rows_at_once)), list[Cohort]()
    with attending(model):
        while waiting or running:
            # New prompts go through the same products as the others' next tokens, for which alone a product is small:
            # 32 rows reach half of the machine's rate, a thousand tokens all of it.
            _admit(waiting, running, room, rows_at_once)
            logits = forward(model, running)
            extend([row for cohort in running for row in cohort.rows], logits, how)
            for cohort in running:
                for row in cohort.drop_done():
                    done(row)
            running = [cohort for cohort in running if cohort.rows]


def _admit(waiting: deque[Cohort], running: list[Cohort], room: int, rows_at_once: int) -> None:
    """Move cohorts from those that wait to those that run while there is room; one always runs."""
    tokens = 0
    while waiting:
        tokens += waiting[0].fresh_tokens
        places = waiting[0].places + sum(cohort.places for cohort in running)
        rows = len(waiting[0].rows) + sum(len(cohort.rows) for cohort in running)
        if running and (places > room or rows > rows_at_once or tokens > PROMPT_TOKENS):
            return
        running.append(waiting.popleft())


def _cohorts(prompts: list[list[Row]], how: Sampling, rows_at_once: int) -> Iterator[Cohort]:
    """Yield the rows in cohorts whose prompts are of nearly the same length."""
    held, tokens = list[Row](), 0
    for rows in (each[at : at + rows_at_once] for each in prompts for at in range(0, len(each), rows_at_once)):
        length = len(rows[0].prompt)
        longest = len(held[0].prompt) if held else length
        alike = longest - length <= PADDING * (longest + how.max_new_tokens)
        many = len(held) + len(rows) > min(rows_at_once, COHORT_ROWS) or tokens + length > PROMPT_TOKENS
        if held and (many or not alike):
            yield Cohort(held, how.max_new_tokens)
            held, tokens = [], 0
        held, tokens = held + rows, tokens + length
    yield Cohort(held, how.max_new_tokens)


def free_memory(device: torch.device) -> int:
    """Return how many bytes of memory this process may count on where it computes."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    with suppress(OSError, StopIteration):
        lines = Path("/proc/meminfo").read_text().splitlines()
        found = next(line for line in lines if line.startswith("MemAvailable:"))
        return int(found.split()[1]) * 1024 // distributed.this_rank().local_world_size
    return 4 << 30


_tried: WeakKeyDictionary[PreTrainedModel, int] = WeakKeyDictionary()


def bytes_per_token(model: PreTrainedModel) -> int:
    """Return the bytes that a token takes in the cache of cohorts; 0 for a model that cohorts give other logits.

    Tried once for a model: its caches are all plain ones, and some prompts of different lengths, with what follows, get
    the logits that each gets alone.
    """
    if model not in _tried:
        try:
            _tried[model] = _try(model)
        except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
            _tried[model] = 0
    return _tried[model]


def _try(model: PreTrainedModel) -> int:
    # By the kind of cache, since a window longer than the prompts of the trial would not show in their logits.
    if any(type(layer) is not DynamicLayer for layer in DynamicCache(config=model.config).layers):
        return 0
    if any(_turns_by_the_longest(module) for module in model.modules()):
        return 0
    how, vocabulary = Sampling(3, frozenset()), model.config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    prompts = [torch.randint(vocabulary, (size,), generator=generator).tolist() for size in (9, 7, 2)]
    rows = [Row(prompt, 0, how) for prompt in prompts]
    cohorts = [Cohort(rows[:2], 3), Cohort(rows[2:], 3)]
    for token in torch.randint(vocabulary, (3,), generator=generator).tolist():
        alone = [model(torch.tensor([[*row.prompt, *row.ids]], device=model.device)).logits[0, -1] for row in rows]
        with attending(model):
            together = forward(model, cohorts)
        if not _close(together.float(), torch.stack(alone).float(), 1e-4 if model.dtype == torch.float32 else 5e-2):
            return 0
        for row in rows:
            row.ids.append(token)
    return cohorts[0].bytes_per_token


def _turns_by_the_longest(module: torch.nn.Module) -> bool:
    """Say whether positions are turned by angles that depend on the longest row of a call, as transformers marks it."""
    kind = str(getattr(module, "rope_type", ""))
    return kind == "longrope" or "dynamic" in kind


def _close(one: Tensor, other: Tensor, tolerance: float) -> bool:
    return bool(((one - other).norm(dim=-1) <= tolerance * other.norm(dim=-1)).all())


HARMLESS = ("_token_id", "_version", "_from_model_config", "do_sample", "temperature", "top_p", "top_k", "max_length",
            "max_new_tokens", "cache_implementation", "use_cache", "output_")  # fmt: skip


def _is_processed(model: PreTrainedModel, how: Sampling) -> bool:
    """Say whether the model asks `generate` to change greedy logits: by a penalty for repetition, say."""
    # Names are matched by what does not touch greedy logits, so that what a later version adds is not overlooked.
    settings = model.generation_config.to_diff_dict()
    return not how.temperature and any(
        value is not None and not any(part in name for part in HARMLESS) for name, value in settings.items()
    )


class _Chooser(LogitsProcessor):  # type: ignore[misc]
    """Lets rows draw their tokens from within `generate`."""

    def __init__(self, rows: Sequence[Row], how: Sampling) -> None:
        self.rows, self.how = rows, how

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        tokens = torch.tensor(extend(self.rows, scores, self.how), device=scores.device)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


def _by_generate(
    model: PreTrainedModel, rows: Sequence[Row], how: Sampling, done: Callable[[Row], None]
) -> None:  # fmt: skip
    """Let the model's own `generate` compute rows, with the cache that it needs."""
    pad = min(how.ends, default=0)
    for part in (rows[at : at + COHORT_ROWS] for at in range(0, len(rows), COHORT_ROWS)):
        pads = [max(len(row.prompt) for row in part) - len(row.prompt) for row in part]
        ids = [[pad] * count + list(row.prompt) for count, row in zip(pads, part, strict=True)]
        seen = [[0] * count + [1] * len(row.prompt) for count, row in zip(pads, part, strict=True)]
        model.generate(
            input_ids=torch.tensor(ids, device=model.device),
            attention_mask=torch.tensor(seen, device=model.device),
            max_new_tokens=how.max_new_tokens,
            do_sample=False,
            pad_token_id=pad,
            logits_processor=LogitsProcessorList([_Chooser(part, how)]),
        )
        for row in part:
            done(row)
