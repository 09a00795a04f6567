"""Graders whose packages are not installed say so before anything runs, with the line that installs them."""

import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

ROOT = Path(__file__).parents[2]
TEXTS = {"type": "text_similarity", "input": "x", "reference": "y"}


@pytest.mark.parametrize(
    ("configuration", "error"),
    [
        (
            TEXTS | {"evaluation_metric": "fuzzy_match"},
            "evaluation_metric: fuzzy_match needs the package rapidfuzz; pip install 'runner[graders]'.",
        ),
        (
            TEXTS | {"evaluation_metric": "meteor"},
            "evaluation_metric: meteor needs the package nltk; pip install 'runner[graders]'.",
        ),
        (
            TEXTS | {"evaluation_metric": "rouge_2"},
            "evaluation_metric: rouge_2 needs the package rouge_score; pip install 'runner[graders]'.",
        ),
        (
            {"type": "json_schema", "schema": {}},
            "type: json_schema needs the package jsonschema; pip install 'runner[graders]'.",
        ),
        (
            {"type": "pairwise", "model": "gpt-4.1-mini"},
            "type: pairwise needs the package openai; pip install 'runner[graders]'.",
        ),
        (
            {"type": "endpoint", "url": "https://example.org/grade"},
            "type: endpoint needs the package httpx2; pip install 'runner[graders]'.",
        ),
        ({"type": "length", "max": 3}, ""),
    ],
    ids=lambda value: value.get("evaluation_metric", value["type"]) if isinstance(value, dict) else "",
)
def test_a_missing_package_is_named(configuration: dict[str, object], error: str, tmp_path: Path) -> None:
    (tmp_path / "msgspec").symlink_to(Path(msgspec.__file__).parent)  # all that is installed
    code = f"""
from runner.errors import RequestError
from runner.graders import make
try:
    make({configuration!r}, "evaluation.graders[0]")
except RequestError as error:
    print(error, end="")
"""
    variables = os.environ | {"PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"}
    reported = subprocess.run(
        [sys.executable, "-S", "-c", code], env=variables, capture_output=True, text=True, check=True
    )
    assert reported.stdout == (f"evaluation.graders[0]: {error}" if error else "")
