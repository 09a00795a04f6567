"""What a sweep costs: six rates in one command next to six commands, and many finished trials next to Hydra alone.

    python tests/benchmarks/bench_sweep.py [--only rates,finished] [--trials 1000]

    rates       the embedded model, six learning rates: six commands with a cache each; one command, its trials one
                after the other; one command with two trials at a time, a thread each
    finished    the second call of a sweep whose trials are all finished; their records are copies of one real run's

About 30 minutes on two cores; the last line is JSON.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[2]))

from omegaconf import OmegaConf

from runner import planning
from runner.cache import user_folder
from runner.execution import execute
from runner.request import check, hydra_config
from tests import tiny
from tests.conftest import pair_row

RATES = (0.25, 0.5, 1, 2, 4, 8)
KEY = "dpo.learning_rate_multiplier"
SIDE_BY_SIDE = ("hydra/launcher=processes", "hydra.launcher.n_jobs=2", "backend.runtime.threads=1")
HYDRA_ALONE = """
import sys, hydra
sys.path.insert(0, sys.argv.pop(1))
from hydra._internal.core_plugins.basic_sweeper import BasicSweeperConf
from hydra.core.config_store import ConfigStore
from hydra.core.plugins import Plugins
from runner.request import hydra_config
hydra_config.register()
Plugins.instance()  # ours is found now, and Hydra's own put back in its place
ConfigStore.instance().store(group="hydra/sweeper", name="basic", node=BasicSweeperConf)
hydra.main(version_base="1.3", config_path=str(hydra_config.home() / "conf"), config_name="config")(lambda one: 0)()
"""


def say(text: str) -> None:
    """Print the progress."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def cache(folder: Path) -> dict[str, str]:
    """Return variables that name a cache which knows the models and the machine, and nothing else."""
    folder.mkdir(parents=True)
    for name in ("models", "machines"):
        known = user_folder() / name
        if known.exists():
            (folder / name).symlink_to(known.resolve(), target_is_directory=True)
    return {"RUNNER_CACHE": str(folder), "PYTHONPATH": str(Path(__file__).parents[2])}


def seconds(line: Sequence[str], folder: Path, variables: dict[str, str]) -> float:
    """Run a command to its end; return its seconds."""
    folder.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    subprocess.run([sys.executable, *line], cwd=folder, env=os.environ | variables, check=True, capture_output=True)
    return time.perf_counter() - began


def rates(scratch: Path) -> dict[str, Any]:
    """Measure one sweep next to the same trials as commands of their own."""
    own = sum(
        seconds(["-m", "runner", f"{KEY}={rate}"], scratch / f"own-{rate}", cache(scratch / f"cache-{rate}"))
        for rate in RATES
    )
    say(f"six commands, a cache each: {own:.0f} s")
    swept = ["-m", "runner", "-m", f"{KEY}={','.join(map(str, RATES))}"]
    together = seconds(swept, scratch / "together", cache(scratch / "cache-together"))
    say(f"one command: {together:.0f} s, {together / own:.0%} of them")
    both = seconds([*swept, *SIDE_BY_SIDE], scratch / "both", cache(scratch / "cache-both"))
    say(f"one command, two trials at a time: {both:.0f} s, {both / own:.0%} of them; the bar is 65%")
    return {"own": own, "together": together, "side_by_side": both, "share": both / own}


def finished(scratch: Path, num_trials: int) -> dict[str, Any]:
    """Measure the second call of a sweep of finished trials next to Hydra's own time for as many."""
    folder = scratch / "finished"
    folder.mkdir()
    tiny_model = tiny.make_model(scratch / "tiny")
    data = folder / "pairs.jsonl"
    data.write_text("".join(json.dumps(pair_row(number)) + "\n" for number in range(16)), "utf-8")
    keys = [f"model.source=path:{tiny_model}", f"dataset.train={data}", "dataset.validation=null", "tracking=none",
            "dataset.validation_fraction=0.25", "dataset.style=null", "evaluation.samples=0"]  # fmt: skip
    variables = cache(scratch / "cache-finished")
    seconds(["-m", "runner", *keys, "seed=0"], folder, variables)
    (made,) = folder.glob("runs/*-*")
    copy_finished(folder, made, keys, num_trials)
    sweep = [*keys, f"seed={','.join(map(str, range(num_trials)))}"]
    ours = seconds(["-m", "runner", "-m", *sweep], folder, variables)
    root = str(Path(__file__).parents[2])
    hydra = seconds(["-c", HYDRA_ALONE, root, "-m", *sweep], folder, variables)
    say(f"{num_trials} finished trials: {ours:.1f} s, Hydra alone {hydra:.1f} s; the bar is 10 s more")
    return {"trials": num_trials, "seconds": ours, "hydra_seconds": hydra}


def copy_finished(folder: Path, made: Path, keys: Sequence[str], num_trials: int) -> None:
    """Give every other trial's folder the records of the one that was made."""
    from hydra import compose, initialize_config_dir

    hydra_config.register()
    known, here = planning.PlanCache(), Path.cwd()
    os.chdir(folder)
    try:
        with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
            composed: Any = OmegaConf.to_container(compose("config", list(keys)), resolve=True)
        for seed in range(1, num_trials):
            job = planning.make(check.request(composed | {"seed": seed}), known).run
            shutil.copytree(made, job.folder, ignore=shutil.ignore_patterns("checkpoints", "model", ".lock"))
            execute.keep(job)
    finally:
        os.chdir(here)


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=lambda text: text.split(","), default=["rates", "finished"])
    parser.add_argument("--trials", type=int, default=1000)
    asked = parser.parse_args()
    found: dict[str, Any] = {"benchmark": "sweep"}
    with tempfile.TemporaryDirectory() as scratch:
        if "finished" in asked.only:
            found["finished"] = finished(Path(scratch), asked.trials)
        if "rates" in asked.only:
            found["rates"] = rates(Path(scratch))
    say(json.dumps(found))


if __name__ == "__main__":
    main()
