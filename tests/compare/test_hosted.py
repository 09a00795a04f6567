"""A hosted and a local run side by side: judged by what they answer to the same held-out prompts."""

import json
from pathlib import Path

import pytest

pytest.importorskip("azure.ai.projects")

from tests.hosted_cli import LINE, hosted

pytestmark = pytest.mark.slow

SHARED = ("evaluation.samples=6", "evaluation.max_new_tokens=16", "dataset.style='.*(bread|answer).*'")


def test_a_hosted_and_a_local_run_are_compared_prompt_by_prompt(tiny_model: Path, tmp_path: Path) -> None:
    with hosted(tmp_path) as here:
        sent = here.run(*SHARED, "backend.deploy=keep")
        same = [each for each in LINE if not each.startswith("backend")]
        local = here.command("runner", *same, *SHARED, f"model.source=path:{tiny_model}", "name=local")
        assert local.returncode == 0, local.stderr
        reported = here.command("runner.compare", "one", "local", "--json", "--metric", "eval/in_style")
    assert reported.returncode == 0, reported.stderr
    (difference,) = json.loads(reported.stdout)["differences"]
    prompts = json.loads((sent / "samples.json").read_bytes())
    assert (difference["metric"], difference["rows"]) == ("eval/in_style", len(prompts))
    assert len(prompts) >= 4
