"""What the run's own model says to its held-out rows: what every export is compared with. Kept in the run's folder."""

from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import msgspec

from runner.data.quality.vision import images_of
from runner.data.rows import Message, Prompt, Row, Turns
from runner.errors import DataError
from runner.exporting.evidence import Evidence, Ids, Questions, Scored
from runner.exporting.exporter import RunModel
from runner.models.chat.row_tokens import common_prefix
from runner.models.chat.tokenizer import ChatTokenizer
from runner.plan import Run
from runner.record import layout
from runner.record.files import read_kept, write_json
from runner.record.samples import Sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel

PROMPT_TOKENS, ANSWER_TOKENS = 1024, 48
"""Rows with longer prompts are left out, and answers are scored up to so many tokens: a quarter of an hour, not a day,
where a program answers ten tokens a second."""


class Reference(msgspec.Struct, frozen=True):
    """Questions, with the answers of the run's model and the base model's log-probabilities."""

    digest: str
    """Of the run's weights."""
    wanted: int
    """How many rows were asked for."""
    split: str
    asked: Questions
    run: Evidence
    base: list[list[float]]


class _Row(NamedTuple):
    question: Turns
    answer: Turns
    """None where the data has no answer: then the model's own is scored."""


def reference(run: Run, model: RunModel, rows: int, max_new_tokens: int) -> Reference:
    """Return what the run's model says, asked now or out of the run's folder.

    Raises `DataError` where the run has no row that can be asked.
    """
    path = run.folder / layout.EXPORTS / layout.QUESTIONS
    kept = read_kept(path, Reference)
    wanted = (model.reference.digest, rows, max_new_tokens)
    if kept is not None and (kept.digest, kept.wanted, kept.asked.max_new_tokens) == wanted:
        return kept
    # None of it depends on the form: ten exports of a run are compared with one reference.
    split, found = _rows(run, model.tokenizer, rows)
    made = _ask(model, split, found, rows, max_new_tokens)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, made)
    return made


def _rows(run: Run, tokenizer: ChatTokenizer, count: int) -> tuple[str, list[_Row]]:
    """Return the first rows with prompts that differ: held-out ones, or where there are none those learned from."""
    for split in ("validation", "train"):
        found = list(islice(_asked(run.rows(split), tokenizer), count))
        if found:
            return split, found
    raise DataError(
        f"{run.folder.name}: no row has a prompt of text alone, of at most {PROMPT_TOKENS:,} tokens, to ask the export."
    )


def _asked(rows: Iterable[Row], tokenizer: ChatTokenizer) -> Iterator[_Row]:
    seen = set[Turns]()
    for row in rows:
        # Of a model that sees, only its text is exported and proven.
        if row.tools or images_of(row) or not row.question or row.question in seen:
            continue
        seen.add(row.question)
        if len(tokenizer.encode_prompt(Prompt(row.question))) <= PROMPT_TOKENS:
            yield _Row(row.question, row.answer)


def _ask(model: RunModel, split: str, rows: list[_Row], wanted: int, max_new_tokens: int) -> Reference:
    # torch is loaded here: an export that is there already is found, and served, without it.
    from runner.backends.local.generate import replies

    weights, tokenizer, prompts = model.weights(), model.tokenizer, [row.question for row in rows]
    said = replies(weights, tokenizer, [Prompt(each) for each in prompts], Sampling(max_new_tokens=max_new_tokens))
    texts = [each[0].text for each in said]
    scored = [_scored(tokenizer, row, text) for row, text in zip(rows, texts, strict=True)]
    asked = Questions(prompts, scored, model.ends, max_new_tokens)
    evidence = Evidence(
        prompts=[tokenizer.encode_prompt(Prompt(each)) for each in prompts],
        conversations=[tokenizer.encode(tokenizer.render(each.messages)) for each in scored],
        logps=[logps(weights, each) for each in scored],
        replies=texts,
        ends=model.ends,
        stops=[True] * len(model.ends),
    )
    # Only one of the two is in memory at a time.
    model.release()
    base = model.base()
    before = [logps(base, each) for each in scored]
    return Reference(model.reference.digest, wanted, split, asked, evidence, before)


def _scored(tokenizer: ChatTokenizer, row: _Row, own: str) -> Scored:
    messages = row.question + (row.answer or (Message("assistant", own),))
    prompt, whole = tokenizer.encode_prompt(Prompt(row.question)), tokenizer.encode(tokenizer.render(messages))
    # Where the tokens of prompt and prompt + answer part: a token may join the end of one and the start of the other.
    start = common_prefix(prompt, whole)
    return Scored(messages, whole[:start], whole[start : start + ANSWER_TOKENS])


def logps(model: "PreTrainedModel", row: Scored) -> list[float]:
    """Return the log-probability of each token of an answer, in nats."""
    import torch

    ids: Ids = [*row.prompt, *row.answer]
    labels, keep = torch.tensor(row.answer), len(row.answer) + 1
    with torch.no_grad():
        logits = model(torch.tensor([ids]), use_cache=False, logits_to_keep=keep).logits[0, :-1].float()
    return [float(each) for each in logits.log_softmax(-1).gather(1, labels[:, None])[:, 0]]


def folder_of(run: Path, form: str, quantization: str) -> Path:
    """Return where an export of a run is kept."""
    return run / layout.EXPORTS / f"{form}-{quantization}"
