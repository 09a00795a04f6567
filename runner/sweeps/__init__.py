"""`-m`: many trials of one request. All are planned before the first one starts; at the end stands a comparison.

    command line → trials → a plan each, or none starts → launched by Hydra → compared → summary

A sweep is the set of its plans: the same command again is the same sweep, whose finished trials answer from their
records. Its folder, `runs/sweeps/NAME-<8 of its id>/`, holds sweep.json and the comparison; a parent run in MLflow
(parent.py) holds its trials together.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from runner.errors import ModelError, RequestError, RunnerError, StopAsked

if TYPE_CHECKING:
    from runner.config import Request
    from runner.plan import Job, Known

Launch = Callable[[list[list[str]]], list[Any]]
ONWARD = "run:"
"""How a model source begins that another run makes."""
SHOWN = 40
"""So many trials are listed at most before a sweep starts."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One request of a sweep: how it was typed, what sets it apart, the request, and its job.

    There is no job yet where the trial goes on from the model that another one is about to make (`model.source=run:…`).
    """

    overrides: tuple[str, ...]
    name: str
    request: "Request"
    job: "Job | None"

    @property
    def known_as(self) -> str:
        """Its plan id; what was typed, where the plan hangs on what another run makes."""
        if self.job is None or self.request.model.source.startswith(ONWARD):
            return " ".join(self.overrides)
        return self.job.plan.id


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Some trials, in the order in which they are launched."""

    trials: tuple[Trial, ...]
    id: str
    """sha256 of what its trials are known as, in whatever order, in hexadecimal."""

    @property
    def request(self) -> "Request":
        """The first trial's request, which says what they share: folders, tracking."""
        return self.trials[0].request

    @property
    def folder(self) -> Path:
        """Where its summary lives."""
        top = self.request.top
        name = top.name if top.name != "auto" else f"{self.request.method}-sweep"
        return Path(top.runs_folder) / "sweeps" / f"{name}-{self.id[:8]}"

    @property
    def jobs(self) -> dict[str, "Job"]:
        """The jobs that are planned, by their trials' names."""
        return {trial.name: trial.job for trial in self.trials if trial.job}


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
    from runner.sweeps.parent import Parent

    def planned() -> Sweep:
        return make([list(each) for each in trials], lambda overrides: loader.load_sweep_config(config, overrides))

    sweep = planned()
    finished = {name for name, job in sweep.jobs.items() if execute.finished(job) is not None}
    console.table(*_listed(sweep, finished), fold=False)
    if sweep.request.top.mode == "plan":
        return []
    parent = Parent(sweep)
    parent.open()
    new = [each for each in sweep.trials if each.name not in finished or each.request.top.again]
    returned = launch([[*each.overrides, f"sweep={sweep.id}"] for each in new]) if new else []
    codes = {trial.name: int(job.return_value) for trial, job in zip(new, returned, strict=True)}
    if len(sweep.jobs) < len(sweep.trials):  # by now there is a model to go on from
        parent.sweep = sweep = replace(sweep, trials=planned().trials)
    keep(sweep)
    summary = _summed_up(sweep, codes)
    console.say()
    problem = parent.close(summary, max(codes.values(), default=0))
    if problem:
        console.say(f"note: MLflow could not be reached ({problem}); the same command sends what is missing")
    _raise_for(codes)
    return returned


def make(trials: Sequence[list[str]], compose: Callable[[list[str]], Any]) -> Sweep:
    """Plan every trial. Raises `RequestError` with each one that is wrong."""
    from runner import composition, plan

    names = name(trials)
    known = plan.Known()
    made, problems = [], []
    for overrides, called in zip(trials, names, strict=True):
        try:
            request = _request(compose(overrides))
            job = _job(request, known, waits=len(trials) > 1)
            made.append(Trial(overrides=tuple(overrides), name=called, request=request, job=job))
        except Exception as error:
            told = composition.sentence(error)
            if told is None:
                raise
            problems.append((called, str(told)))
    if problems:
        raise RequestError(_refused(problems, len(trials)))
    together = " ".join(sorted(each.known_as for each in made))
    return Sweep(trials=tuple(made), id=sha256(together.encode()).hexdigest())


def name(trials: Sequence[Sequence[str]]) -> list[str]:
    """Return what each trial is called: the overrides that not all of them share."""
    shared = set.intersection(*(set(each) for each in trials))
    return [", ".join(part for part in each if part not in shared) or "the one trial" for each in trials]


def keep(sweep: Sweep) -> None:
    """Write down which trials there are and where they live."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    listed = [{"name": name, "folder": str(job.folder), "plan_id": job.plan.id} for name, job in sweep.jobs.items()]
    content = msgspec.json.encode({"id": sweep.id, "trials": listed})
    (sweep.folder / "sweep.json").write_bytes(msgspec.json.format(content))


def _request(composed: Any) -> "Request":
    from omegaconf import OmegaConf, open_dict

    from runner import config

    with open_dict(composed):
        composed.pop("hydra", None)
    return config.request(OmegaConf.to_container(composed, resolve=True))


def _job(request: "Request", known: "Known", waits: bool) -> "Job | None":
    """Plan a request; None where it may wait for a run that another trial is about to make."""
    from runner import plan

    try:
        return plan.make(request, known).job
    except ModelError:
        if waits and request.model.source.startswith(ONWARD):
            return None
        raise


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
        begun = trial.job is not None and (trial.job.folder / "journal.jsonl").exists()
        state = "finished" if trial.name in finished else "goes on" if begun else "new"
        place = trial.job.folder.name if trial.job else f"from {trial.request.model.source}, planned in its turn"
        rows.append([trial.name, state, place])
    more = len(sweep.trials) - len(rows)
    rows += [[f"… and {more} more", "", ""]] if more else []
    todo = len(sweep.trials) - len(finished)
    title = f"{sweep.folder.name}: {len(sweep.trials)} trials, {len(finished)} finished before, {todo} to do"
    return title, ["trial", "state", "run"], rows


def _summed_up(sweep: Sweep, codes: Mapping[str, int]) -> Mapping[str, Any]:
    """Compare what is there, show and write it; return the summary as a JSON value."""
    from runner import console
    from runner.compare import output, results, verdict

    folders = {name: job.folder for name, job in sweep.jobs.items() if (job.folder / "plan.json").exists()}
    found = {folder: results.read(folder) for folder in folders.values()}
    ended = [result for result in found.values() if result.metrics]
    failed = [
        {"name": name, "status": found[folder].status, "message": found[folder].message}
        for name, folder in folders.items()
        if codes.get(name)
    ]
    summary: dict[str, Any] = {"trials": len(sweep.trials), "failed": failed,
                               "seconds": sum(result.seconds for result in found.values())}  # fmt: skip
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
