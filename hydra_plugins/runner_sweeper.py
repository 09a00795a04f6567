"""Where Hydra finds our sweepers: it looks for plugins in the namespace `hydra_plugins` and nowhere else.

Hydra imports this module at every start, so all that they do is in runner/sweeps/.
"""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override

if TYPE_CHECKING:
    from typing import Unpack

    from hydra.core.utils import JobReturn
    from omegaconf import DictConfig

    from runner.sweeps.optuna_study import SearchKeys


@dataclass
class RunnerSweeperConf:
    """Keys under `hydra.sweeper`: Hydra's own, and the metric that trials are ranked by."""

    _target_: str = "hydra_plugins.runner_sweeper.RunnerSweeper"
    max_batch_size: int | None = None
    metric: str | None = None
    params: dict[str, str] | None = None


@dataclass
class OptunaSweeperConf:
    """Keys under `hydra.sweeper` with `hydra/sweeper=optuna`; runner/sweeps/optuna_study.py says what they allow."""

    _target_: str = "hydra_plugins.runner_sweeper.OptunaSweeper"
    n_trials: int = 20
    n_jobs: int = 1
    sampler: str = "tpe"
    pruner: str = "none"
    seed: int = 0
    metric: str | None = None
    params: dict[str, str] | None = None


# `basic` is what Hydra takes where nothing is said, and what an experiment can still override.
for name, node in (("basic", RunnerSweeperConf), ("optuna", OptunaSweeperConf)):
    ConfigStore.instance().store(group="hydra/sweeper", name=name, node=node, provider="runner")


class RunnerSweeper(BasicSweeper):
    """Hydra's grid of trials, planned before the first one starts and summed up after the last."""

    def __init__(self, max_batch_size: int | None, metric: str | None, params: dict[str, str] | None = None) -> None:
        super().__init__(max_batch_size, params)
        self._metric = metric

    def sweep(self, arguments: list[str]) -> None:
        """Plan all trials, launch them, and say what came out."""
        from runner.sweeps import grid

        # Without max_batch_size there is one batch, of all trials: they are planned together, and cut into
        # batches only for the launcher.
        trials = self.split_arguments(self._overrides(arguments), None)[0]
        grid.run(trials, self._compose, self._launch, self._metric)

    def _overrides(self, arguments: list[str]) -> list[Override]:
        """Parse what was asked for, in YAML and on the command line."""
        assert self.hydra_context is not None
        # YAML first: what is typed comes later, and wins.
        asked = [f"{key}={value}" for key, value in self.params.items()] + list(arguments)
        return OverridesParser.create(config_loader=self.hydra_context.config_loader).parse_overrides(asked)

    def _compose(self, overrides: list[str]) -> "DictConfig":
        assert self.hydra_context is not None
        assert self.config is not None
        return self.hydra_context.config_loader.load_sweep_config(self.config, overrides)

    def _launch(self, trials: list[list[str]]) -> "list[JobReturn]":
        """Give trials to the launcher, `max_batch_size` at a time; return the result of each."""
        assert self.launcher is not None
        returned: list[JobReturn] = []
        for batch in self.split_overrides_to_chunks(trials, self.max_batch_size):
            # Job numbers continue over batches: Hydra makes folders of them.
            returned += self.launcher.launch(batch, initial_job_idx=len(returned))
        return returned


class OptunaSweeper(RunnerSweeper):
    """Trials that Optuna proposes from the results of earlier ones."""

    def __init__(self, metric: str | None, params: dict[str, str] | None = None, **asked: "Unpack[SearchKeys]") -> None:
        super().__init__(None, metric, params)
        self._asked = asked

    def sweep(self, arguments: list[str]) -> None:
        """Search, and say what came out."""
        from runner.sweeps import search

        search.run(self._overrides(arguments), self._metric, self._asked, self._compose, self._launch)
