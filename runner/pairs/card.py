"""What is written: the rows in shapes that `dataset.train` reads, and a card that says how they were made."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from statistics import fmean

import msgspec

from runner import __version__, graders
from runner.data.json_value import Json
from runner.data.reading.files import locate
from runner.data.rows import canonical_lines
from runner.errors import RequestError
from runner.pairs.choosing import Choice, Scored
from runner.pairs.making import Making
from runner.record import files, layout, samples

PAIRS, BEST = "pairs.jsonl", "best.jsonl"
"""Preference rows as TRL has them, and conversations: a prompt and its best answer."""
CARD, MADE = layout.CARD, "pairs.json"
"""The card in the form of Hugging Face's data cards, and the same for programs."""


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """How rows were made: no time and no folder, so that the same request writes the same bytes."""

    model: str
    identity: str
    """What decides the model's answers: the digest of its weights, or its place and name."""
    prompts: dict[str, str]
    """The sha256 of each file of prompts."""
    grader: dict[str, Json]
    sampling: dict[str, float]
    margin: float
    at_least: float | None
    similar: float
    counts: dict[str, int]
    no_pair: dict[str, int]
    """Of how many prompts there is no pair, by reason."""
    no_best: dict[str, int]
    means: dict[str, float]
    """Mean scores: of all graded answers, the chosen, the rejected and the best ones."""
    fingerprints: dict[str, str]
    """The sha256 of each file of rows."""
    version: str


def require_ours(folder: Path, prompts: str | Sequence[str]) -> None:
    """Raise `RequestError` where something would be lost: files that are not ours, or the prompts themselves."""
    own = [folder / name for name in (PAIRS, BEST, CARD)]
    if not (folder / MADE).exists() and (foreign := next((each for each in own if each.exists()), None)):
        raise RequestError(
            f"to: {foreign} is there and was not made by runner.pairs, as no {MADE} is next to it; name another folder."
        )
    # A second round, say: the next one would have only the prompts that this one made pairs of.
    asked = {file.path.resolve(): file.name for file in locate(prompts)}
    if found := next((asked[path] for each in own if (path := each.resolve()) in asked), None):
        raise RequestError(f"to: {found} holds the prompts, and would be overwritten; name another folder.")


def write(making: Making, choice: Choice, found: Mapping[str, Sequence[Scored]]) -> Made:
    """Write pairs, best answers and their card into the folder `to`, and return how they were made."""
    folder = Path(making.keys.to)
    folder.mkdir(parents=True, exist_ok=True)
    lines = {
        PAIRS: canonical_lines([pick.pair for pick in choice.pairs]),
        BEST: canonical_lines([pick.conversation for pick in choice.best]),
    }
    made = _made(making, choice, found, lines)
    # First, as it makes the folder ours; the card last: where it is, the rows that it describes are.
    files.write_json(folder / MADE, made)
    for name, content in lines.items():
        files.write(folder / name, content)
    files.write(folder / CARD, page(made).encode())
    return made


def _made(
    making: Making, choice: Choice, found: Mapping[str, Sequence[Scored]], lines: Mapping[str, bytes]
) -> Made:  # fmt: skip
    evaluation, keys = making.evaluation, making.keys
    every = [each.score for scored in found.values() for each in scored]
    # Chosen against all answers: how much is asked of the model at most.
    scores = {
        "all answers": every,
        "chosen": [pick.best.score for pick in choice.pairs],
        "rejected": [pick.worst.score for pick in choice.pairs if pick.worst],
        "best": [pick.best.score for pick in choice.best],
    }
    return Made(
        model=making.model,
        identity=evaluation.respondents[making.model].identity,
        prompts={file.name: sha256(file.path.read_bytes()).hexdigest() for file in locate(keys.dataset)},
        # As it is kept anywhere: without its secrets.
        grader=graders.configuration(making.grader),
        sampling=asdict(samples.sampling(making.request)),
        margin=keys.margin,
        at_least=making.at_least,
        similar=keys.similar,
        counts={
            "prompts": len(evaluation.rows), "nearly the same prompts, not asked": making.repeated,
            "answers": len(evaluation.rows) * keys.n, "graded answers": len(every),
            "pairs": len(choice.pairs), "best answers": len(choice.best),
        },
        no_pair=dict(choice.no_pair),
        no_best=dict(choice.no_best),
        means={name: fmean(values) for name, values in scores.items() if values},
        fingerprints={name: sha256(content).hexdigest() for name, content in lines.items()},
        version=__version__,
    )  # fmt: skip


def page(made: Made) -> str:
    """Return the card as Markdown: its head names the files, so that `datasets` loads either by its name."""
    # `datasets` cannot load a file without rows.
    held = {PAIRS: "pairs", BEST: "best answers"}
    configs = [f"- config_name: {Path(name).stem}\n  data_files: {name}" for name in held if made.counts[held[name]]]
    head = ["---", "tags: [on-policy, preference]", *(["configs:", *configs] if configs else []), "---", ""]
    sampling = ", ".join(f"{name} {value:g}" for name, value in made.sampling.items())
    return "\n".join([
        *head,
        "# Answers of a model, the best against the worst", "",
        f"`{made.model}` answered each prompt {made.sampling['per_prompt']:g} times, a grader scored the answers, and "
        "of each prompt the best answer was kept against the worst.", "",
        f"- `{PAIRS}`: {made.counts['pairs']:,} rows of `prompt`, `chosen`, `rejected`",
        f"- `{BEST}`: {made.counts['best answers']:,} conversations, a prompt with its best answer", "",
        *_table("How they were made", {
            "model": made.model, "its identity": made.identity,
            "prompts": ", ".join(f"{name} (sha256 {digest[:12]})" for name, digest in made.prompts.items()),
            "sampling": sampling, "margin": f"{made.margin:g}",
            "at least": "any score" if made.at_least is None else f"{made.at_least:g}",
            "nearly the same from": f"{made.similar:g}", "runner": made.version,
        }),
        *_table("Counts", made.counts),
        *_table("Prompts without a pair", made.no_pair),
        *_table("Prompts without an answer to imitate", made.no_best),
        *_table("Mean scores", {name: f"{value:.3f}" for name, value in made.means.items()}),
        "## Grader", "", "```json", msgspec.json.format(msgspec.json.encode(made.grader)).decode(), "```", "",
        "## Limits", "",
        "The answers are a model's own and were checked by the grader alone: what it does not see, wrong facts say, is "
        "in the chosen answers, too. The terms of the prompts, the model and a judge apply to the rows.", "",
    ])  # fmt: skip


def _table(title: str, values: Mapping[str, object]) -> list[str]:
    # A cell's own bars would be columns.
    rows = [f"| {name} | {str(value).replace('|', chr(92) + '|')} |" for name, value in values.items()]
    return [f"## {title}", "", "| | |", "|---|---|", *rows, ""] if rows else []
