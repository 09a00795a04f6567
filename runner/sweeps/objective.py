"""What ranks a sweep or is searched for: a name that no trial will measure is refused before the first one starts."""

from collections.abc import Sequence

from runner import methods
from runner.errors import RequestError
from runner.evaluation import configured
from runner.record import samples
from runner.sweeps import Trial

HOSTED = "hosted/"
"""How a hosted job's own numbers begin; which there are the service alone knows."""


def demand(metric: str, trials: Sequence[Trial]) -> None:
    """Raise `RequestError` where none of the trials is going to measure a metric."""
    known = list(dict.fromkeys(name for trial in trials for name in _measured(trial)))
    # What a service measures is not known before a job has begun, so it is not refused.
    if metric in known or metric.startswith(HOSTED):
        return
    why = (
        "" if "eval/loss" in known else " (no rows are held out: set dataset.validation or dataset.validation_fraction)"
    )
    raise RequestError(f"hydra.sweeper.metric: got {metric}; allowed: {', '.join(known)}{why}.")


def usual(trial: Trial) -> str:
    """Return what is searched for where nothing is said."""
    return f"eval/{methods.load(trial.request.method).headline}"


def _measured(trial: Trial) -> list[str]:
    request = trial.request
    names = [each.name for each in (methods.LOSS, *methods.load(request.method).metrics)]
    held_out = request.dataset.validation is not None or request.dataset.validation_fraction > 0
    judged = [f"eval/{name}" for name in names] if held_out else []
    answered = samples.most(request) != 0
    # Measured from sampled answers at the end: they rank trials, but no pruner sees them on the way.
    graded = [f"eval/{each.name}" for each in configured.of_request(request)] if answered else []
    return [*judged, *graded, *(f"train/{name}" for name in names)]
