"""Prompts answered by the base and the tuned model: how answers are sampled, and how they are kept in a run's folder.

samples.json      each prompt with its first answers, for people
problems.jsonl, answers.jsonl    all of them, for graders (graded.py)
"""

from collections import Counter
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import asdict, dataclass
from hashlib import sha256
from pathlib import Path
from typing import NamedTuple

from runner.data import problems
from runner.data.json_value import Json
from runner.data.kinds.problem import Problem
from runner.data.reading.files import locate
from runner.data.rows import Row, Turns, canonical
from runner.record import graded, layout
from runner.record.events import Event, Result, Samples
from runner.record.files import write_json
from runner.record.graded import Answer, Asked
from runner.request.keys import Request


class Reply(NamedTuple):
    """An answer: its text, whether it ended by itself (not at the token limit), and the tools it calls."""

    text: str
    ended: bool = True
    tool_calls: list[Json] | None = None


Replies = Sequence[Sequence[Reply]]
"""Of each prompt its answers, as many as `Sampling.per_prompt`."""

GRADED_PROMPTS, SHOWN_PROMPTS = 32, 10
"""Held-out prompts that are answered: so many that graders can distinguish models, or just to be looked at."""
NOT_ASKED = Reply("(no base model to ask)")


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """How answers are sampled. A temperature of 0 takes the likeliest token each time, so that answers do not vary."""

    max_new_tokens: int
    per_prompt: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


def sampling(request: Request) -> Sampling:
    """Return how a request wants answers to be sampled."""
    keys = request.evaluation
    return Sampling(
        max_new_tokens=keys.max_new_tokens, per_prompt=keys.samples_per_prompt, temperature=keys.temperature,
        top_p=keys.top_p, seed=request.seed,
    )  # fmt: skip


def key(request: Request) -> str:
    """Return what answers depend on beyond the plan: how many, how they are sampled, the content of own prompts."""
    files = locate(request.evaluation.prompts) if request.evaluation.prompts else ()
    # The content, not the path: a prompt that was changed is answered again, a file that was moved is not.
    content = sha256(b"".join(sha256(file.path.read_bytes()).digest() for file in files)).hexdigest()[:16]
    how = ", ".join(f"{name} {value:g}" for name, value in asdict(sampling(request)).items())
    return f"{most(request)} prompts{f' of {content}' if files else ''}, {how}"


def most(request: Request) -> int | None:
    """Return how many prompts are answered at most; None where all of the own ones are."""
    keys = request.evaluation
    if keys.samples != "auto":
        return keys.samples
    if keys.prompts:
        return None
    return GRADED_PROMPTS if keys.graders or request.dataset.style else SHOWN_PROMPTS


def rows_to_ask(
    request: Request, held_out: Iterable[tuple[Row, str]], fits: Callable[[Row], bool] = lambda row: True
) -> list[Asked]:
    """Return the rows that models are asked: those of `evaluation.prompts`, else the first held-out ones that fit.

    `held_out` has each with its source of a mixture, which is empty of other data.

    Raises `DataError` for own prompts that cannot be read.
    """
    keys, count = request.evaluation, most(request)
    if keys.prompts:
        return asked(problems.read(keys.prompts), count, by_prompt=False)
    held = ((problem, source) for row, source in held_out if fits(row) and (problem := Problem.of(row)) is not None)
    found = _in_turn(list(held)) if request.dataset.mix else held
    return _differing((_asked(problem, True, source=source) for problem, source in found), count)


def _in_turn(rows: Sequence[tuple[Problem, str]]) -> list[tuple[Problem, str]]:
    """Return the rows of several sources in turn, so that the first few have the shares that all have."""
    # They come source by source: the first 32 of a mixture would be of its first source.
    size, met, places = Counter(source for _, source in rows), Counter[str](), list[float]()
    for _, source in rows:
        met[source] += 1
        places.append((met[source] - 0.5) / size[source])
    return [rows[number] for number in sorted(range(len(rows)), key=places.__getitem__)]


def asked(found: Iterable[tuple[Problem, str]], most: int | None, by_prompt: bool) -> list[Asked]:
    """Return the first problems that differ, each given with its place, as they are asked and kept.

    With `by_prompt` a row's id is that of its prompt and tools: what a pair and a conversation with the same prompt,
    and so the runs of different methods, have in common. Else it is that of the prompt and all other keys.
    """
    return _differing((_asked(problem, by_prompt, place=place) for problem, place in found), most)


def _differing(found: Iterable[Asked], most: int | None) -> list[Asked]:
    rows: dict[str, Asked] = {}
    for each in found:
        # By those that differ, not by those that were read.
        if most is not None and len(rows) >= most:
            break
        # A prompt that the data has twice is asked once: rows are the unit of a comparison.
        rows.setdefault(each.row, each)
    return list(rows.values())


def _asked(problem: Problem, by_prompt: bool, place: str = "", source: str = "") -> Asked:
    row = sha256(canonical(_identity(problem, by_prompt))).hexdigest()
    return Asked(
        row=row, prompt=problem.prompt, fields=problem.reference, tools=problem.tools, place=place, source=source
    )


def _identity(problem: Problem, by_prompt: bool) -> Row | Turns:
    """Return by what a row is known."""
    if not by_prompt:
        return problem
    return Problem(problem.prompt, tools=problem.tools) if problem.tools else problem.prompt


def keep(
    folder: Path | None, rows: Sequence[Asked], before: Replies | None, after: Replies
) -> Generator[Event, None, Result]:
    """Keep answers in a run's folder, if one is given, and yield some to show; return how many rows were asked.

    `before` is None where the base model could not be asked.
    """
    pairs = side_by_side(rows, before, after)
    if folder is not None:
        write_json(folder / layout.SAMPLES, pairs)
        graded.write(folder / graded.PROBLEMS, rows)
        graded.write(folder / graded.ANSWERS, [*answers("base", rows, before or []), *answers("tuned", rows, after)])
    yield Samples(pairs)
    return {"num_samples": len(pairs)}


def answers(model: str, rows: Sequence[Asked], replies: Replies) -> list[Answer]:
    """Return a model's answers as they are kept."""
    return [
        Answer(model=model, row=row.row, sample=number, **reply._asdict())
        # None at all where the base model could not be asked.
        for row, each in zip(rows, replies, strict=bool(replies))
        for number, reply in enumerate(each)
    ]


def side_by_side(rows: Sequence[Asked], before: Replies | None, after: Replies) -> list[dict[str, str]]:
    """Return each prompt with the first answer of both models; `before` is None where the base could not be asked."""
    olds = before or [[NOT_ASKED]] * len(after)
    return [
        {"prompt": row.shown, "before": _shown(old[0]), "after": _shown(new[0])}
        for row, old, new in zip(rows, olds, after, strict=True)
    ]


def _shown(reply: Reply) -> str:
    """Return an answer's text, marked where the limit cut it off."""
    return reply.text if reply.ended else reply.text + " […]"
