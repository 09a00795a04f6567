"""The embedded model learns the house style, and is promoted over the model that it was made from."""

import os
import sys
from pathlib import Path

import pytest

from tests import warm

pytestmark = [pytest.mark.slow, pytest.mark.exhaustive]


def test_house_style_is_promoted_over_the_base_model_and_a_second_seed_is_refused(
    embedded_model: Path, tmp_path: Path
) -> None:
    def command(*line: str) -> tuple[int, str]:
        environment = os.environ | {"PYTHONWARNINGS": "ignore", "COLUMNS": "300"}
        done = warm.run([sys.executable, "-m", *line], cwd=tmp_path, env=environment, timeout=3600)
        return done.returncode, done.stdout + done.stderr

    line = [
        "runner", "method=sft", "dataset=house_style_sft", "backend.max_steps=24", "backend.learning_rate=0.001",
        "evaluation.samples=14", "evaluation.max_new_tokens=64",
    ]  # fmt: skip
    for name, seed in (("first", 1), ("second", 2)):
        code, said = command(*line, f"name={name}", f"seed={seed}")
        assert code == 0, said
    code, said = command("runner.promote", "first")
    assert code == 0, said
    assert "beats the base model: answers in style +" in said
    code, said = command("runner.promote", "second")
    assert code == 1, said
    assert "differ in their seed only" in said
