"""Where runs are: `runs/NAME-<first 8 characters of the plan id>/`, and sweeps in `runs/sweeps/`.

The only module that knows these places. The key `runs_folder`, the option `--runs-folder` of the commands and the
variable `RUNNER_RUNS_FOLDER`, which is the default of both, name another folder than `runs`. A run that is given by
its path is found wherever it is.
"""

import os
from hashlib import sha256
from pathlib import Path

import msgspec

from runner.errors import ModelError
from runner.record import layout
from runner.record.files import safe_name

USUAL = Path("runs")
SET_ASIDE = ".before-"
"""In the name of a folder that `again=true` has renamed, so that its plan can be run once more."""
# In hexadecimal: among 1,000 plans two are taken for one with a probability of 1 in 8,600.
PLAN_ID_CHARACTERS = 8


def default() -> Path:
    """Return the folder in which runs are looked up where a command is given no other."""
    return Path(os.environ.get("RUNNER_RUNS_FOLDER") or USUAL)


def every(runs: Path, set_aside: bool = False) -> list[Path]:
    """Return the folders of all runs that have started, the last changed one last; on request also those set aside."""
    # By the journal's time: a folder's own changes with each file that is renamed into it, as MLflow's position is.
    journals = sorted(runs.glob(f"*/{layout.JOURNAL}"), key=lambda path: path.stat().st_mtime)
    return [path.parent for path in journals if set_aside or SET_ASIDE not in path.parent.name]


def set_aside(folder: Path) -> list[Path]:
    """Return the folders of earlier runs of a plan that were set aside for the one in `folder`."""
    return sorted(folder.parent.glob(f"{folder.name}{SET_ASIDE}*"))


def find(name: str, runs: Path) -> Path:
    """Return a run's folder by its path, or by its name or the start of its plan id in the folder `runs`.

    Raises `ModelError` with the runs that exist, where none or several match.
    """
    if not name:  # a variable of the shell that is not set: every name starts with it, and `clean` would take the run
        raise ModelError("run: got an empty name; give a run's folder, its name or the start of its plan id.")
    for folder in (Path(name), runs / name):
        if (folder / layout.JOURNAL).exists():
            return folder
    existing = sorted(every(runs))
    # Names have hyphens themselves, so the plan id is what comes after the last one.
    fitting = [path for path in existing if path.name.startswith(name) or path.name.rpartition("-")[2].startswith(name)]
    if len(fitting) == 1:
        return fitting[0]
    if not existing:
        raise ModelError(f"run {name}: not found; {runs}/ is empty.")
    names = ", ".join(path.name for path in (fitting or existing)[:8])
    raise ModelError(f"run {name}: {'several runs fit' if fitting else 'not found'}; give one of: {names}.")


def of_plan(plan_id: str, runs: Path) -> Path | None:
    """Return the folder that holds a plan, under whatever name, if there is one."""
    return next(iter(sorted(runs.glob(f"*-{plan_id[:PLAN_ID_CHARACTERS]}"))), None)


def new(name: str, plan_id: str, runs: Path) -> Path:
    """Return the folder that a new run of a plan gets."""
    return runs / f"{name}-{plan_id[:PLAN_ID_CHARACTERS]}"


def latest_with_model(runs: Path) -> Path | None:
    """Return the folder of the run that made its model last, if any has one."""
    # Any JSON there: a local run's reference among others, or what a hosted run's model is called.
    made = sorted(runs.glob(f"*/{layout.MODEL}/*.json"), key=lambda path: path.stat().st_mtime)
    return made[-1].parent.parent if made else None


def evaluations_in(runs: Path) -> Path:
    """Return the folder of the evaluations of any models."""
    return runs / "evaluations"


def evaluation(runs: Path, name: str, decided_by: object, kind: str = "") -> Path:
    """Return the folder of an evaluation: called by a name and its kind, and distinguished by what it depends on."""
    identity = sha256(msgspec.json.encode(decided_by)).hexdigest()[:PLAN_ID_CHARACTERS]
    return evaluations_in(runs) / f"{safe_name(name)}{kind}-{identity}"


def sweeps_in(runs: Path) -> Path:
    """Return the folder of the folders of sweeps."""
    return runs / "sweeps"


def sweeps(runs: Path) -> list[Path]:
    """Return the folders of all sweeps, the last one last."""
    found = sorted(sweeps_in(runs).glob(f"*/{layout.SWEEP}"), key=lambda path: path.stat().st_mtime)
    return [path.parent for path in found]


def trial_name(sweep_id: str, plan_id: str, runs: Path) -> str | None:
    """Return what its sweep calls a trial; None where there is none, or it could not be planned with the others."""
    folder = of_plan(sweep_id, sweeps_in(runs))
    if folder is None or not (folder / layout.SWEEP).exists():
        return None
    trials = msgspec.json.decode((folder / layout.SWEEP).read_bytes())["trials"]
    return next((str(each["name"]) for each in trials if each["plan_id"] == plan_id), None)


def handle(folder: Path) -> str:
    """Return what other commands call a run: its name where they look by themselves, else its folder."""
    return folder.name if folder.parent == default() else str(folder)
