"""The same prompts answered before and after: rows to show, and which answers are in the style that is taught.

samples.json      each prompt with its answers
in_style.jsonl    for each prompt, by its hash, whether the answer is in the style: what a hosted and a local run,
                  or two methods, can be compared by row by row
"""

from collections.abc import Generator, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec

from runner.data.rows import Message, canonical
from runner.record.answer_style import fault
from runner.record.events import Event, Metrics, Samples

Prompt = tuple[Message, ...]
Answer = tuple[str, bool]
"""A text, and whether it ended by itself, not at the token limit."""

Compared = tuple[Sequence[Answer] | None, Sequence[Answer]]
"""The answers before, None where the base model could not be asked, and those after."""

NOT_ASKED: Answer = ("(no base model to ask)", True)


def beside(prompts: Sequence[Prompt], before: Sequence[Answer] | None, after: Sequence[Answer]) -> list[dict[str, str]]:
    """Return each prompt with its answers; `before` is None where the base model could not be asked."""
    olds = before or [NOT_ASKED] * len(after)
    return [
        {"prompt": str(prompt[-1].content), "before": _shown(old), "after": _shown(new)}
        for prompt, old, new in zip(prompts, olds, after, strict=True)
    ]


def in_style(
    prompts: Sequence[Prompt], before: Sequence[Answer] | None, after: Sequence[Answer], style: str | None
) -> dict[str, float]:
    """Return the shares of answers in the data set's style, as metrics; none where it names no style."""
    told = {"eval/in_style_before": before, "eval/in_style": after}
    hits = {name: _hits(prompts, answers, style) for name, answers in told.items() if answers and style}
    return {name: sum(each) / len(each) for name, each in hits.items()}


def compared(
    folder: Path | None, prompts: Sequence[Prompt], answers: Compared, style: str | None, step: int
) -> Generator[Event, None, dict[str, Any]]:
    """Keep answers in a run's folder, if one is given, and tell of them, as measured after `at` optimizer steps.

    Returns their number and shares.
    """
    rows, counted = beside(prompts, *answers), in_style(prompts, *answers, style)
    if folder is not None:
        (folder / "samples.json").write_bytes(msgspec.json.format(msgspec.json.encode(rows)))
        if style:
            hits = zip(prompts, _hits(prompts, answers[1], style), strict=True)
            judged = [{"row": sha256(canonical(prompt)).hexdigest(), "in_style": float(hit)} for prompt, hit in hits]
            (folder / "in_style.jsonl").write_bytes(msgspec.json.Encoder().encode_lines(judged))
    yield Samples(rows)
    yield Metrics(step, counted)
    return {"num_samples": len(rows), **counted}


def _hits(prompts: Sequence[Prompt], answers: Sequence[Answer], style: str) -> list[bool]:
    return [
        not fault(text, ended, str(prompt[-1].content), style)
        for prompt, (text, ended) in zip(prompts, answers, strict=True)
    ]


def _shown(answer: Answer) -> str:
    """Return an answer's text, marked where the limit cut it off."""
    text, ended = answer
    return text if ended else text + " […]"
