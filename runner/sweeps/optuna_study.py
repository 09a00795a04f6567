"""What Optuna does for a search: it proposes trials, learns their results, and says which are not worth their end.

The study is a log next to the sweep's summary (Optuna's journal file), which several processes and machines may write,
and which outlives them. What it proposes next depends on the results it has, on the seed and on the trial's number,
not on which process asks: a search that was killed proposes what it would have proposed.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from runner.compare.difference import lower_is_better
from runner.errors import Pruned, RequestError
from runner.record import events

if TYPE_CHECKING:
    import optuna
    from hydra.core.override_parser.types import Override

    from runner.execution.execute import Listener
    from runner.record.journal import Record

NAME = "search"
"""What the study is called in its file, which holds no other."""
SAMPLERS = ("tpe", "gp", "random")
PRUNERS = ("none", "median", "successive_halving", "hyperband")


class SearchKeys(TypedDict):
    """Keys under `hydra.sweeper` that say how to search."""

    n_trials: int
    n_jobs: int
    sampler: str
    pruner: str
    seed: int


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How to search: what for, for how many trials, and by which of Optuna's samplers and pruners."""

    metric: str
    n_trials: int
    n_jobs: int
    sampler: str
    pruner: str
    seed: int

    def __post_init__(self) -> None:
        for key, allowed in (("sampler", SAMPLERS), ("pruner", PRUNERS)):
            if getattr(self, key) not in allowed:
                raise RequestError(f"hydra.sweeper.{key}: got {getattr(self, key)!r}; allowed: {', '.join(allowed)}.")
        for key in ("n_trials", "n_jobs"):
            if getattr(self, key) < 1:
                raise RequestError(f"hydra.sweeper.{key}: got {getattr(self, key)}; allowed: an integer ≥ 1.")


@dataclass(frozen=True)
class Space:
    """The search space: the overrides that all trials share, and Optuna's distribution of each other key."""

    fixed: tuple[str, ...]
    free: Mapping[str, "optuna.distributions.BaseDistribution"]

    def ends(self) -> Iterator[list[str]]:
        """Yield trials at which each key takes its ends, or each of its choices, while the others take their first."""
        first = {key: _ends(kind)[0] for key, kind in self.free.items()}
        yield self.overrides(first)
        for key, kind in self.free.items():
            for value in _ends(kind)[1:]:
                yield self.overrides(first | {key: value})

    def overrides(self, values: Mapping[str, object]) -> list[str]:
        """Return what would be typed for a trial with these values."""
        return [*self.fixed, *(f"{key}={self._typed(key, value)}" for key, value in values.items())]

    def _typed(self, key: str, value: object) -> str:
        from optuna.distributions import FloatDistribution

        kind = self.free[key]
        if not (isinstance(value, float) and isinstance(kind, FloatDistribution)):
            return str(value)
        # Four digits distinguish trials, and make names that can be read; no end is passed by rounding.
        return f"{min(max(float(f'{value:.4g}'), kind.low), kind.high):g}"


def space(overrides: Sequence["Override"]) -> Space:
    """Return what overrides in Hydra's grammar span: `a,b`, `choice(…)`, `range(…)`, `interval(…)`, `tag(log, …)`.

    Raises `RequestError` where nothing is left to search.
    """
    # As Hydra has it: of a key that is given twice the last one counts.
    last = {each.get_key_element(): each for each in overrides}
    fixed = [f"{key}={each.get_value_element_as_str()}" for key, each in last.items() if not each.is_sweep_override()]
    free = {key: _distribution(key, each) for key, each in last.items() if each.is_sweep_override()}
    if not free:
        raise RequestError(
            "hydra/sweeper=optuna: nothing is left to search; give a key several values, as in "
            "'dpo.learning_rate_multiplier=tag(log, interval(0.1, 10))' dpo.beta=0.05,0.1,0.2."
        )
    return Space(tuple(fixed), free)


def _distribution(key: str, override: "Override") -> "optuna.distributions.BaseDistribution":
    from hydra.core.override_parser.types import IntervalSweep, Sweep
    from optuna import distributions

    asked = override.value()
    assert isinstance(asked, Sweep), "`space` passes those only that span several values"
    log = "log" in asked.tags
    try:
        if isinstance(asked, IntervalSweep):
            if "int" in asked.tags:
                return distributions.IntDistribution(int(asked.start or 0), int(asked.end or 0), log=log)
            return distributions.FloatDistribution(float(asked.start or 0), float(asked.end or 0), log=log)
        return distributions.CategoricalDistribution(list(override.sweep_string_iterator()))
    except ValueError as error:
        raise RequestError(f"{key}: Optuna cannot search {override.input_line}: {error}") from error


def _ends(kind: "optuna.distributions.BaseDistribution") -> list[object]:
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    if isinstance(kind, CategoricalDistribution):
        return list(kind.choices)
    assert isinstance(kind, FloatDistribution | IntDistribution)
    return [kind.low, kind.high]


class Study:
    """The state of a search: trials that are begun, and the results of the finished ones."""

    def __init__(self, path: Path, space: Space, settings: Settings) -> None:
        self._space, self._settings = space, settings
        self._study = _begin(path, settings)
        self._tried: set[int] = set()

    def next(self) -> dict[int, list[str]]:
        """Return the overrides of the trials to do now, by their numbers: those that are begun, then new ones."""
        import optuna

        trials = self._study.get_trials(deepcopy=False)
        # What a killed process has left open is taken up again, once per command.
        begun = [each for each in trials if not each.state.is_finished() and each.number not in self._tried]
        found = {each.number: each.params for each in begun[: self._settings.n_jobs]}
        while len(found) < self._settings.n_jobs and len(trials) < self._settings.n_trials:
            # A sampler per trial, seeded by its number: one that lives on would depend on what this process has drawn
            # before.
            self._study.sampler = _sampler(self._settings, len(trials))
            asked: optuna.Trial = self._study.ask(dict(self._space.free))
            found[asked.number] = asked.params
            trials = self._study.get_trials(deepcopy=False)
        self._tried |= set(found)
        return {number: self._space.overrides(params) for number, params in found.items()}

    def proposed(self) -> list[list[str]]:
        """Return the overrides of all trials that there are, in the order in which they were proposed."""
        return [self._space.overrides(each.params) for each in self._study.get_trials(deepcopy=False)]

    def tell(self, number: int, value: float | None) -> None:
        """Report a trial's result; None if it was pruned. One that failed is not reported: it will be tried again."""
        from optuna.trial import TrialState

        # Optuna raises for a result that it has; a launcher may report one again after a kill.
        if not self._study.get_trials(deepcopy=False)[number].state.is_finished():
            self._study.tell(number, value, TrialState.PRUNED if value is None else TrialState.COMPLETE)


class Pruner:
    """Within a trial: reports its evaluations to the study, and says when it should be given up.

    A listener, which passes on all that it hears. `place` is the study's file and the trial's number, `FILE#NUMBER`.
    """

    def __init__(self, place: str, listener: "Listener") -> None:
        import optuna

        path, _, number = place.rpartition("#")
        study = _load(Path(path))
        begun = study.get_trials(deepcopy=False)[int(number)]
        self._metric = study.user_attrs["metric"]
        # Optuna has no public way to a trial that another process has asked for.
        self._trial, self._listener = optuna.Trial(study, begun._trial_id), listener
        # Steps of the training loop, as its first progress says; the reason to give up, once there is one.
        self._total, self._verdict = 0, ""

    def __call__(self, record: "Record") -> None:
        """Pass a record on, and take note of it."""
        self._listener(record)
        match record.event:
            case events.Progress(step="train", total=total):
                self._total = total
            case events.Metrics(step=step, values=values) if self._metric in values:
                self._report(step, values[self._metric])

    def reason(self) -> Pruned | None:
        """Return what to end the trial with, if it should end."""
        return Pruned(self._verdict) if self._verdict else None

    def _report(self, step: int, value: float) -> None:
        self._trial.report(value, step)
        if 0 < step < self._total and self._trial.should_prune():  # at its end there is nothing left to save
            self._verdict = f"given up after {step} steps: {self._metric} {value:.4g} is behind the other trials'"


def _begin(path: Path, settings: Settings) -> "optuna.Study":
    import optuna

    path.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        storage=_storage(path),
        study_name=NAME,
        direction="minimize" if lower_is_better(settings.metric) else "maximize",
        load_if_exists=True,  # the same search continues
    )
    # The trials, which may be other processes, read what they need from the file.
    study.set_user_attr("metric", settings.metric)
    study.set_user_attr("pruner", settings.pruner)
    return study


def _load(path: Path) -> "optuna.Study":
    import optuna

    study = optuna.load_study(storage=_storage(path), study_name=NAME)
    study.pruner = _pruner(study.user_attrs["pruner"])
    return study


def _storage(path: Path) -> "optuna.storages.BaseStorage":
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return JournalStorage(JournalFileBackend(str(path)))


def _sampler(settings: Settings, number: int) -> "optuna.samplers.BaseSampler":
    """Return the sampler for the trial of that number: a process that takes a search up draws as the first would."""
    import warnings

    from optuna import samplers

    # A prime above any number of trials, so that two searches share no seeds.
    seed = settings.seed * 100_003 + number
    if settings.sampler == "random":
        return samplers.RandomSampler(seed=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some of it may change
        if settings.sampler == "gp":
            # Two runs of one plan end in the same bits, so that there is no noise to model.
            return samplers.GPSampler(seed=seed, deterministic_objective=True)
        # multivariate: learning rate and beta depend on each other (Falkner et al. 2018, arXiv:1807.01774).
        return samplers.TPESampler(seed=seed, multivariate=True)


def _pruner(name: str) -> "optuna.pruners.BasePruner":
    from optuna import pruners

    kinds = {
        "none": pruners.NopPruner, "median": pruners.MedianPruner,
        "successive_halving": pruners.SuccessiveHalvingPruner, "hyperband": pruners.HyperbandPruner,
    }  # fmt: skip
    made: optuna.pruners.BasePruner = kinds[name]()
    return made
