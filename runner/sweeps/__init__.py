"""`-m`: many trials of one request. All are planned before the first one starts; a comparison ends the sweep.

    command line → trials → a plan each, or none starts → launched by Hydra → compared → summary

grid.py      every combination of the values given
search.py    trials that Optuna proposes, from the results of earlier ones (optuna_study.py)
summary.py   what is printed before and after
objective.py what trials are ranked by

The parent run in MLflow, which holds the trials' runs together, is in runner/tracking/sweep_run.py.

A sweep is the set of its plans: the same command again is the same sweep, whose finished trials answer from their
records. Its folder, `runs/sweeps/NAME-<8 of its id>/`, holds sweep.json and the comparison.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from runner import backends
from runner.errors import ModelError, RequestError
from runner.record import layout, run_folders
from runner.record.files import write_json

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from runner.compare.verdict import ComparisonJson
    from runner.plan import Proposal, Run
    from runner.planning import PlanCache
    from runner.request.keys import Request

Compose = Callable[[list[str]], "DictConfig"]
"""Returns the configuration that overrides make."""
ONWARD = "run:"
"""How a model source begins that another run makes."""


class Summary(TypedDict, total=False):
    """What `summary.json` holds: how the trials came out, and from the first that has metrics on, their comparison."""

    trials: int
    failed: list[dict[str, str]]
    seconds: float
    comparison: "ComparisonJson"
    page: str
    dollars: float | None


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One request of a sweep: how it was typed, what sets it apart, the request, and what is proposed for it.

    There is no proposal yet where it continues from the model that another one is about to make (`model.source=run:…`).
    """

    overrides: tuple[str, ...]
    name: str
    request: "Request"
    proposal: "Proposal | None"

    @property
    def run(self) -> "Run | None":
        """The planned run, if there is one."""
        return self.proposal.run if self.proposal else None

    @property
    def known_as(self) -> str:
        """Its plan id; what was typed, where the plan depends on what another run makes."""
        if self.run is None or self.request.model.source.startswith(ONWARD):
            return " ".join(self.overrides)
        return self.run.plan.id


@dataclass(frozen=True, kw_only=True)
class Sweep:
    """Some trials, in the order in which they are launched."""

    trials: tuple[Trial, ...]
    id: str
    """sha256 of what makes it this one, in hexadecimal: its trials in whatever order, or what is searched."""

    @property
    def request(self) -> "Request":
        """The first trial's request, which says what they share: folders, tracking."""
        return self.trials[0].request

    @property
    def folder(self) -> Path:
        """Where its summary lives."""
        request = self.request
        where = "hosted-" if backends.load(self.request.backend.name).hosted else ""
        name = request.name if request.name != "auto" else f"{where}{self.request.method}-sweep"
        # Next to the runs, not around them: a run belongs to its plan, and several sweeps may share it.
        return run_folders.new(name, self.id, run_folders.sweeps_in(Path(request.runs_folder)))

    @property
    def runs(self) -> dict[str, "Run"]:
        """The runs that are planned, by their trials' names."""
        return {trial.name: trial.run for trial in self.trials if trial.run}


def make(
    trials: Sequence[list[str]],
    compose: Compose,
    known: "PlanCache | None" = None,
    shared: Collection[str] | None = None,
) -> tuple[Trial, ...]:
    """Plan every trial, given by its overrides; it is called by those that are not shared, with all if not said.

    Raises `RequestError` with each one that is wrong.
    """
    from runner import planning
    from runner.request import hydra_errors

    names = name(trials, shared)
    # Data and tokens are surveyed once, however many trials share them.
    known = known or planning.PlanCache()
    made, problems = [], []
    for overrides, called in zip(trials, names, strict=True):
        try:
            request = _request(compose(overrides))
            proposal = _proposal(request, known, waits=len(trials) > 1)
            made.append(Trial(overrides=tuple(overrides), name=called, request=request, proposal=proposal))
        # Every trial is tried, so that all that is wrong is said at once; what is no mistake of the user's is
        # raised as it is.
        except Exception as error:
            sentence = hydra_errors.sentence(error)
            if sentence is None:
                raise
            problems.append((called, str(sentence)))
    if problems:
        raise RequestError(_refused(problems, len(trials)))
    return tuple(made)


def distinct(trials: Sequence[Trial]) -> tuple[Trial, ...]:
    """Return trials without those with the plan of an earlier one: `dpo.beta=0.1,0.10` is one trial."""
    found: dict[str, Trial] = {}
    for each in trials:
        # The first of equal ones stays: its name is the one that was typed first.
        found.setdefault(each.known_as, each)
    return tuple(found.values())


def identity(*parts: str) -> str:
    """Return the id of a sweep that these make what it is."""
    return sha256(" ".join(parts).encode()).hexdigest()


def name(trials: Sequence[Sequence[str]], shared: Collection[str] | None = None) -> list[str]:
    """Return what each trial is called: the overrides that are not shared; if not said, those that not all have."""
    if shared is None:
        # Where trials are planned in several goes (a search), the caller says what is shared: a few alone may
        # share more.
        shared = set.intersection(*(set(each) for each in trials))
    return [", ".join(part for part in each if part not in shared) or "the one trial" for each in trials]


def keep(sweep: Sweep) -> None:
    """Write down which trials there are and where they live, so that they can be compared before the end."""
    sweep.folder.mkdir(parents=True, exist_ok=True)
    listed = [{"name": name, "folder": str(run.folder), "plan_id": run.plan.id} for name, run in sweep.runs.items()]
    write_json(sweep.folder / layout.SWEEP, {"id": sweep.id, "trials": listed})


def _request(composed: "DictConfig") -> "Request":
    from omegaconf import OmegaConf, open_dict

    from runner.request import check

    # `hydra` is the one node that is not ours, and OmegaConf's structs let no key be taken out otherwise.
    with open_dict(composed):
        composed.pop("hydra", None)
    return check.request(OmegaConf.to_container(composed, resolve=True))


def _proposal(request: "Request", known: "PlanCache", waits: bool) -> "Proposal | None":
    """Plan a request; None where it may wait for a run that another trial is about to make."""
    from runner import planning
    from runner.terminal import check_progress

    try:
        with check_progress.checking_data() as report:
            return planning.make(request, known, report)
    # Another trial may be about to make it; a request alone has nobody to wait for.
    except ModelError:
        if waits and request.model.source.startswith(ONWARD):
            return None
        raise


def _refused(problems: Sequence[tuple[str, str]], count: int) -> str:
    """Return one message on all trials that are wrong; what is wrong with several is said once."""
    if count == 1:
        return problems[0][1]
    # One wrong key on the command line would otherwise be printed once per trial.
    by_text: dict[str, list[str]] = {}
    for called, text in problems:
        by_text.setdefault(text, []).append(called)
    lines = [f"{names[0]}{f' (and {len(names) - 1} more)' if len(names) > 1 else ''}: {text}"
             for text, names in by_text.items()]  # fmt: skip
    lines.append(f"no trial was started: {len(problems)} of {count} are wrong; fix or leave them out.")
    return "\n".join(lines)
