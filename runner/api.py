"""The Python interface: plan, run and compare from a script or a notebook.

    from runner import api

    proposal = api.plan("dataset=files", "dataset.train=pairs.jsonl", "dataset.validation_fraction=0.1")
    result = api.run("dataset=files", "dataset.train=pairs.jsonl", "dataset.validation_fraction=0.1", "dpo.beta=0.05")
    print(api.compare(result.folder, other.folder).verdict)

Overrides are those of the command line. Errors are `runner.errors.RunnerError`, whose text is one sentence.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from runner.compare.results import Result, read, read_all
from runner.compare.verdict import Comparison, make
from runner.plan import Proposal


def plan(*overrides: str) -> Proposal:
    """Return what `mode=plan` prints: the run with its plan, what is in the data, the reason for each value chosen.

    Raises `RequestError`, `DataError` or `ModelError` for what cannot be trained.
    """
    from runner import planning
    from runner.request import check

    # `mode` is left as it is: a plan that is going to run may ask a hub, one with mode=plan may not.
    return planning.make(check.request(composed(*overrides)))


def run(*overrides: str) -> Result:
    """Execute a request as the command does, and return the result; a finished plan is not executed again.

    Raises `RunnerError` for what fails; the same call resumes.
    """
    from runner.execution import execute
    from runner.execution.pipeline import run_and_report

    planned = plan(*overrides).run
    run_and_report(planned, train=execute.finished(planned) is None)
    return read(planned.folder)


def compare(*folders: Path | str, metric: str | Sequence[str] | None = None, margin: float | None = None) -> Comparison:
    """Compare finished runs, or the models of evaluations, by their folders.

    `verdict` says which is best, `differences` how sure that is; several metrics are corrected for being several.
    """
    return make([each for folder in folders for each in read_all(Path(folder))], metric, margin)


def composed(*overrides: str) -> Mapping[str, Any]:
    """Return the configuration that Hydra composes of overrides. Raises `RunnerError` for one that it refuses."""
    from hydra import compose, initialize_config_dir
    from omegaconf import OmegaConf

    from runner.request import hydra_config, hydra_errors

    hydra_config.register()
    try:
        with initialize_config_dir(str(hydra_config.home() / "conf"), version_base="1.3"):
            # `resolve=True`: what `${…}` means is settled here, and no later code knows OmegaConf.
            composed = OmegaConf.to_container(compose("config", list(overrides)), resolve=True)
    except Exception as error:
        sentence = hydra_errors.sentence(error)
        if sentence is None:
            raise
        # As it is: a wrong request has another exit code than a failed run.
        raise sentence from error
    assert isinstance(composed, dict)
    return {str(key): value for key, value in composed.items()}
