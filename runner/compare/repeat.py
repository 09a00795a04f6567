"""`--repeat RUN`: the command that asks for a run again, and what has changed since: data, model, code, packages."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from runner import planning
from runner.errors import RunnerError
from runner.execution import execute
from runner.plan import Run, flatten
from runner.record import journal, layout
from runner.record.events import Started
from runner.request import check, hydra_config

GROUPS = ("backend", "method", "dataset", "model", "evaluation", "tracking")
PASSING = ("mode", "again", "sweep", "search", "max_price")
"""Keys that say how a run was started, not what it is."""


@dataclass(frozen=True)
class Repeat:
    """A command, and in sentences what is not as it was when the run was made."""

    command: str
    changes: tuple[str, ...]


def repeat(folder: Path) -> Repeat:
    """Return how to make a run of that folder again. Raises `RequestError` where it is no run."""
    run = planning.load(folder)
    command = shlex.join(["python", "-m", "runner", *overrides(run)])
    return Repeat(command, (*_changes_of_plan(run), *_changes_of_packages(folder)))


def overrides(run: Run) -> list[str]:
    """Return what to type: the options that come nearest to what was asked for, and the keys that differ from them."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    hydra_config.register()
    # From the whole request, not from what was typed: the defaults of today may be others.
    keys = hydra_config.all_keys()
    wanted = {key: value for key, value in flatten(check.as_composed(run.request), keys) if key not in PASSING}
    chosen: list[str] = []
    with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):

        def differing(options: Sequence[str]) -> list[str]:
            composed = dict(flatten(OmegaConf.to_container(compose("config", list(options)), resolve=True), keys))
            return [key for key, value in wanted.items() if composed.get(key, "???") != value]

        for group in GROUPS:
            names = sorted(path.stem for path in (hydra_config.home() / "conf" / group).glob("*.yaml"))
            # The option from which the fewest keys differ; each group in turn, as they set different keys.
            nearest = min(["", *names], key=lambda name: len(differing(_with(chosen, group, name))))
            chosen = _with(chosen, group, nearest)
        return [*chosen, *(f"{key}={_typed(wanted[key])}" for key in differing(chosen))]


def _with(chosen: Sequence[str], group: str, name: str) -> list[str]:
    return [*chosen, f"{group}={name}"] if name else [*chosen]


def _typed(value: object) -> str:
    """Return a value in Hydra's grammar."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_typed, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_typed(each)}' for key, each in value.items())}}}"
    if not isinstance(value, str):
        return str(value)
    plain = value and all(letter.isalnum() or letter in "_-./" for letter in value)
    if plain and not value[0].isdigit() and value.lower() not in ("null", "true", "false", "inf", "nan"):
        return value
    quoted = value.replace('"', '\\"')
    return f'"{quoted}"'


def _changes_of_plan(run: Run) -> Iterator[str]:
    """Yield in what the same request would make another plan today."""
    try:
        now = planning.make(run.request).run.plan
    except RunnerError as error:
        yield f"it could not be made today: {error}"
        return
    for split in ("train", "validation"):
        before, after = getattr(run.plan, split), getattr(now, split)
        if before != after:
            rows = [str(each.rows) if each else "no" for each in (before, after)]
            yield f"dataset.{split}: other content, {rows[0]} rows then and {rows[1]} now"
    if run.plan.model != now.model:
        yield f"model.source: other weights, {run.plan.model.digest[:12]} then and {now.model.digest[:12]} now"
    for part in ("hyperparameters", "settings", "evaluation"):
        before, after = dict(flatten(getattr(run.plan, part))), dict(flatten(getattr(now, part)))
        for key in dict.fromkeys([*before, *after]):
            if before.get(key) != after.get(key):
                yield f"{key}: {before.get(key)} then and {after.get(key)} now"


def _changes_of_packages(folder: Path) -> Iterator[str]:
    """Yield which versions are not those of the process that ended the run."""
    begun = [each.event for each in journal.read(folder / layout.JOURNAL) if isinstance(each.event, Started)]
    before, now = begun[-1].versions if begun else {}, execute.versions()
    for name in dict.fromkeys([*before, *now]):
        if before.get(name) != now.get(name):
            yield f"{name}: {before.get(name, 'not there')} then and {now.get(name, 'not there')} now"
