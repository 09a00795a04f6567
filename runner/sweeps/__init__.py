"""`-m`: many trials of one request. All are planned before the first one starts; at the end stands a comparison.

    command line → trials → a plan each, or none starts → launched by Hydra → compared → summary

A sweep is the set of its plans: the same command again is the same sweep, whose finished trials answer from their
records. Its folder, `runs/sweeps/NAME-<8 of its id>/`, holds sweep.json and the comparison; a parent run in MLflow
(parent.py) holds its trials together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import RequestError, RunnerError, StopAsked

if TYPE_CHECKING:
    from runner.plan import Proposal

Launch = Callable[[list[list[str]]], list[Any]]
SHOWN = 40
"""So many trials are listed at most before a sweep starts."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One request of a sweep: how it was typed, what sets it apart, and its plan."""

    overrides: tuple[str, ...]
    name: str
    proposal: "Proposal"

    @property
    def folder(self) -> Path:
        """Where its run lives."""
        return self.proposal.job.folder


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Some trials, in the order in which they are launched."""

    trials: tuple[Trial, ...]

    @property
    def id(self) -> str:
        """sha256 of its plans' ids, in whatever order, in hexadecimal."""
        return sha256(" ".join(sorted(each.proposal.job.plan.id for each in self.trials)).encode()).hexdigest()

    @property
    def folder(self) -> Path:
        """Where its summary lives."""
        top, plan = self.trials[0].proposal.job.request.top, self.trials[0].proposal.job.plan
        name = top.name if top.name != "auto" else f"{plan.method}-sweep"
        return Path(top.runs_folder) / "sweeps" / f"{name}-{self.id[:8]}"


class TrialsError(RunnerError):
    """Some trials of a sweep failed or were stopped; the others are done."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def run(trials: Sequence[Sequence[str]], config: Any, loader: Any, launch: Launch) -> list[Any]:
    """Plan trials given by their overrides, launch those that are not finished, and sum them up.

    Raises `RequestError` where one of them is wrong, before any starts, and `TrialsError` where some failed.
    """
    from runner import console, execute

    sweep = make([list(each) for each in trials], lambda overrides: loader.load_sweep_config(config, overrides))
    finished = {each.name for each in sweep.trials if execute.finished(each.proposal.job) is not None}
    top = sweep.trials[0].proposal.job.request.top
    console.table(*_listed(sweep, finished), fold=False)
    if top.mode == "plan":
        return []
    keep(sweep)
    from runner.sweeps.parent import Parent

    parent = Parent(sweep)
    parent.open()
    new = [each for each in sweep.trials if each.name not in finished or top.again]
    returned = launch([[*each.overrides, f"sweep={sweep.id}"] for each in new]) if new else []
    codes = {trial.name: int(job.return_value) for trial, job in zip(new, returned, strict=True)}
    summary = _summed_up(sweep, codes)
    console.say()
    problem = parent.close(summary, max(codes.values(), default=0))
    if problem:
        console.say(f"note: MLflow could not be reached ({problem}); the same command sends what is missing")
    _raise_for(codes)
    return returned


def make(trials: Sequence[list[str]], compose: Callable[[list[str]], Any]) -> Sweep:
    """Plan every trial. Raises `RequestError` with each one that is wrong."""
    from runner import composition

    names = name(trials)
    made, problems = [], []
    for overrides, called in zip(trials, names, strict=True):
        try:
            made.append(Trial(overrides=tuple(overrides), name=called, proposal=_planned(compose(overrides))))
        except Exception as error:
            told = composition.sentence(error)
            if told is None:
                raise
            problems.append((called, str(told)))
    if problems:
        raise RequestError(_refused(problems, len(trials)))
    return Sweep(trials=tuple(made))


def name(trials: Sequence[Sequence[str]]) -> list[str]:
    """Return what each trial is called: the overrides that not all of them share."""
    shared = set.intersection(*(set(each) for each in trials))
    return [", ".join(part for part in each if part not in shared) or "the one trial" for each in trials]


def keep(sweep: Sweep) -> None:
    """Write down which trials there are and where they live."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    listed = [
        {"name": each.name, "folder": str(each.folder), "plan_id": each.proposal.job.plan.id} for each in sweep.trials
    ]
    content = msgspec.json.encode({"id": sweep.id, "trials": listed})
    (sweep.folder / "sweep.json").write_bytes(msgspec.json.format(content))


def _planned(composed: Any) -> "Proposal":
    from omegaconf import OmegaConf, open_dict

    from runner import config, plan

    with open_dict(composed):
        composed.pop("hydra", None)
    return plan.make(config.request(OmegaConf.to_container(composed, resolve=True)))


def _refused(problems: Sequence[tuple[str, str]], count: int) -> str:
    """Return one message on all trials that are wrong; what is wrong with several is said once."""
    by_text: dict[str, list[str]] = {}
    for called, text in problems:
        by_text.setdefault(text, []).append(called)
    lines = [f"{names[0]}{f' (and {len(names) - 1} more)' if len(names) > 1 else ''}: {text}"
             for text, names in by_text.items()]  # fmt: skip
    if count > 1:
        lines.append(f"no trial was started: {len(problems)} of {count} are wrong; mend or leave them out.")
    return "\n".join(lines)


def _listed(sweep: Sweep, finished: set[str]) -> tuple[str, list[str], list[list[str]]]:
    """Return the title, head and rows of the table that tells what is going to be done."""
    rows = []
    for trial in sweep.trials[:SHOWN]:
        begun = (trial.folder / "journal.jsonl").exists()
        state = "finished" if trial.name in finished else "goes on" if begun else "new"
        rows.append([trial.name, state, trial.folder.name])
    more = len(sweep.trials) - len(rows)
    rows += [[f"… and {more} more", "", ""]] if more else []
    todo = len(sweep.trials) - len(finished)
    title = f"{sweep.folder.name}: {len(sweep.trials)} trials, {len(finished)} finished before, {todo} to do"
    return title, ["trial", "state", "run"], rows


def _summed_up(sweep: Sweep, codes: Mapping[str, int]) -> Mapping[str, Any]:
    """Compare what is there, show and write it; return the summary as a JSON value."""
    from runner import console
    from runner.compare import output, results, verdict

    there = dict.fromkeys(each.folder for each in sweep.trials if (each.folder / "plan.json").exists())
    found = [results.read(folder) for folder in there]
    ended = [result for result in found if result.metrics]
    failed = [
        {"name": each.name, "status": result.status, "message": result.message}
        for each in sweep.trials for result in found
        if result.folder == each.folder and codes.get(each.name)
    ]  # fmt: skip
    summary: dict[str, Any] = {"trials": len(sweep.trials), "failed": failed,
                               "seconds": sum(result.seconds for result in found)}  # fmt: skip
    for each in failed:
        console.complain(f"{each['name']}: {each['status']}: {each['message']}")
    if ended:
        comparison = verdict.make(ended)
        output.write(comparison, sweep.folder)
        console.say()
        output.show(comparison, sweep.folder)
        summary["comparison"] = verdict.as_json(comparison)
        summary["page"] = verdict.markdown(comparison)
    (sweep.folder / "summary.json").write_bytes(msgspec.json.format(msgspec.json.encode(summary)))
    return summary


def _raise_for(codes: Mapping[str, int]) -> None:
    bad = [called for called, code in codes.items() if code]
    if not bad:
        return
    if StopAsked.exit_code in codes.values():
        raise TrialsError("stopped; give the same command again to go on with the sweep", StopAsked.exit_code)
    raise TrialsError(
        f"{len(bad)} of {len(codes)} trials failed; give the same command again to try them once more",
        max(codes.values()),
    )
