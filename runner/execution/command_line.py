"""The command line of `python -m runner`: Hydra composes it into a request, which pipeline.py executes."""

import os
import re
import sys
from pathlib import Path
from typing import NoReturn

from runner import distributed
from runner.errors import RequestError
from runner.execution import pipeline
from runner.request import check, hydra_config
from runner.terminal import cli


def main() -> None:
    """Run the command line; leave with 0, 1 (failed), 2 (wrong request or data) or 130 (stopped)."""
    os.environ["HYDRA_FULL_ERROR"] = "1"  # so that its errors reach us and not its own printer
    import hydra
    from omegaconf import OmegaConf

    # argparse takes no overrides before a flag: `mode=plan -m seed=1,2` would be refused.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda each: each not in ("-m", "--multirun"))
    codes: list[int] = [cli.guarded(_check_typed), cli.guarded(cli.read_dotenv)]
    if any(codes):
        _leave(codes)
    if not distributed.this_rank().first:
        _be_silent()
    OmegaConf.register_new_resolver("runner.commands", lambda: cli.others("runner"), replace=True)
    conf = str(hydra_config.home() / "conf")
    codes.append(cli.guarded(hydra.main(version_base="1.3", config_path=conf, config_name="config")(pipeline.task)))
    _leave(codes + pipeline.ENDED)


def _leave(codes: list[int]) -> NoReturn:
    distributed.end(max(codes))
    sys.exit(max(codes))


def _be_silent() -> None:
    """Leave Hydra's folder and standard output to the first process."""
    sys.argv += ["hydra.run.dir=.", "hydra.output_subdir=null"]
    sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 (to the end)


HYDRA_OPTIONS = ("cfg", "package", "config-path", "config-name", "config-dir", "experimental-rerun", "info")
"""Hydra's own options that take a value."""


def _check_typed() -> None:
    """Raise `RequestError` for what Hydra would write into its folder or not explain: secrets, keys with dashes."""
    for argument in sys.argv[1:]:
        option = re.fullmatch(r"--([\w.-]+)=(.*)", argument)
        if option and option[1] not in HYDRA_OPTIONS:
            raise RequestError(f"{argument}: a key is set without dashes: {option[1].replace('-', '_')}={option[2]}")
        check.require_no_secret(argument)
