"""How long a plan says that training takes: by the latest run of the same kind, however many answers it has sampled."""

import json
import os
from pathlib import Path
from typing import Any

from runner import api


def proposal(model: Path, folder: Path, *more: str) -> Any:
    rows = [{"question": f"How do I keep {number} loaves fresh?", "answer": str(number)} for number in range(12)]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return api.plan(
        "method=rft", "dataset=files", f"model.source=path:{model}", f"dataset.train={folder}/rows.jsonl",
        "rft.grader=length", "rft.batch_size=4", "rft.group_size=2", "rft.n_epochs=1", "rft.updates_per_rollout=1",
        f"runs_folder={folder}/runs", *more,
    )  # fmt: skip


def lines(found: Any) -> dict[str, str]:
    from runner import backends

    return dict(backends.load("local").forecast(found, None))


def test_rollouts_take_as_long_as_those_of_the_last_run_with_this_grader_for_each_answer(
    tiny_model: Path, tmp_path: Path
) -> None:
    first = proposal(tiny_model, tmp_path)
    assert lines(first)["time to train"] == "not known before the first run of this model and grader here"
    assert "in 3 steps of 4 prompts × 2" in lines(first)["answers to sample and grade"]
    plan = first.run.plan
    for name, seconds, grader, age in (("old", 99.0, {}, 9), ("latest", 8.0, {}, 5), ("other", 1.0, {"max": 3}, 1)):
        report = {
            "metrics": {"system/seconds_per_rollout": seconds, "system/tokens_per_second": 1e9},
            "plan": {
                "model": {"digest": plan.model.digest}, "method": "rft", "settings": {"tuning": "lora"},
                "hyperparameters": plan.hyperparameters | {"grader": plan.hyperparameters["grader"] | grader},
            },
        }  # fmt: skip
        (folder := tmp_path / "runs" / name).mkdir(parents=True)
        (folder / "report.json").write_text(json.dumps(report, default=vars), "utf-8")
        os.utime(folder / "report.json", (1e9 - age, 1e9 - age))
    assert lines(proposal(tiny_model, tmp_path))["time to train"].startswith("about 24 s, at the pace of the last run")
    twice = proposal(tiny_model, tmp_path, "rft.group_size=4", "rft.updates_per_rollout=2")
    assert lines(twice)["time to train"].startswith("about 48 s")
    longer = proposal(tiny_model, tmp_path, "rft.max_new_tokens=7")
    assert lines(longer)["time to train"].startswith("not known")
