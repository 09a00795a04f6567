"""The sample programs of `azure-ai-projects` run unchanged against the emulator.

RUNNER_SAMPLES names the folder `samples/finetuning` of the package's source distribution.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.emulator import Emulator

pytestmark = pytest.mark.slow

SAMPLES = {
    "dpo_job": ("gpt-4o-mini", "dpo"),
    "oss_models_supervised_job": ("Ministral-3B", "supervised"),
    "reinforcement_job": ("o4-mini", "reinforcement"),
    "supervised_job": ("gpt-4.1", "supervised"),
}
"""The model that each takes by default, and its method."""


@pytest.mark.parametrize("style", ["strict", "lax"])
@pytest.mark.parametrize("kind", ["", "_async"])
@pytest.mark.parametrize("sample", SAMPLES)
def test_a_sample_program_of_the_sdk_creates_its_job(sample: str, kind: str, style: str) -> None:
    if "RUNNER_SAMPLES" not in os.environ:
        pytest.skip("RUNNER_SAMPLES names no folder with the sample programs of azure-ai-projects")
    if kind:
        pytest.importorskip("aiohttp", reason="the asynchronous sample programs need aiohttp")
    folder = Path(os.environ["RUNNER_SAMPLES"])
    with Emulator(style) as cloud:
        variables = cloud.environment()
        del variables["MODEL_NAME"]
        program = [sys.executable, f"sample_finetuning_{sample}{kind}.py"]
        done = subprocess.run(
            program, cwd=folder, env=os.environ | variables, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stderr
    (job,) = cloud.created_jobs
    assert (job.model, job.method) == SAMPLES[sample]
    assert job.id in done.stdout
    assert cloud.violations == []
