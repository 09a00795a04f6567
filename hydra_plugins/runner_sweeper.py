"""Where Hydra finds our sweeper: it looks for plugins in the namespace `hydra_plugins` and nowhere else.

Hydra imports this module at every start, so all that it does is in runner/sweeps/.
"""

from dataclasses import dataclass
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser


@dataclass
class RunnerSweeperConf:
    """Keys under `hydra.sweeper`: Hydra's own."""

    _target_: str = "hydra_plugins.runner_sweeper.RunnerSweeper"
    max_batch_size: int | None = None
    params: dict[str, str] | None = None


ConfigStore.instance().store(group="hydra/sweeper", name="runner", node=RunnerSweeperConf, provider="runner")


class RunnerSweeper(BasicSweeper):
    """Hydra's grid of trials, planned before the first one starts and summed up after the last."""

    def sweep(self, arguments: list[str]) -> Any:
        """Plan all trials, launch them, and say what came out."""
        from runner import sweeps

        context, config = self.hydra_context, self.config
        assert context is not None
        assert config is not None
        asked = [f"{key}={value}" for key, value in self.params.items()] + list(arguments)
        overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(asked)
        batches = self.split_arguments(overrides, None)
        return sweeps.run(batches[0], config, context.config_loader, self._launch)

    def _launch(self, trials: list[list[str]]) -> list[Any]:
        """Give trials to the launcher, `max_batch_size` at a time; return what each came to."""
        assert self.launcher is not None
        returned: list[Any] = []
        for batch in self.split_overrides_to_chunks(trials, self.max_batch_size):
            returned += self.launcher.launch(batch, initial_job_idx=len(returned))
        return returned
