"""From pairs to a reward model, and from judgements to a model that it grades, by the real commands."""

import json
import sys
from pathlib import Path

import pytest

from tests import warm
from tests.backends.local import plain
from tests.execution.test_resume import quietly

pytestmark = pytest.mark.slow


def command(folder: Path, *line: str, code: int = 0) -> str:
    done = warm.run([sys.executable, "-m", *line], cwd=folder, env=quietly())
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


def run_of(folder: Path, name: str) -> Path:
    (found,) = folder.glob(f"runs/{name}-*")
    return found


def metrics(run: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((run / "report.json").read_bytes())["metrics"]
    return found


@pytest.mark.exhaustive
def test_a_reward_model_of_pairs_grades_what_is_learned_from_their_answers_one_by_one(
    tiny_model: Path, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    pairs = [{"prompt": f"Why {n}?", "chosen": f"In short: {n}.", "rejected": f"Well, {n} and more"} for n in range(18)]
    for name, rows in (("train", pairs[:12]), ("held_out", pairs[12:])):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    line = [
        "runner", "dataset=files", "dataset.train=train.jsonl", "dataset.validation=held_out.jsonl", "tracking=none",
        f"model.source=path:{tiny_model}", "backend.dtype=float32", "evaluation.samples=2",
        "evaluation.max_new_tokens=4",
    ]  # fmt: skip
    said = command(tmp_path, *line, "method=reward", "name=judge", "reward.n_epochs=2", "backend.learning_rate=0.01")
    run = run_of(tmp_path, "judge")
    assert metrics(run)["eval/reward_accuracy"] == 1.0
    assert f"model: 'run:{run.name}'" in said

    # What transformers makes of the model's folder alone is what the run has measured, row by row.
    with plain.untouched():
        model = AutoModelForSequenceClassification.from_pretrained(run / "model").eval()
        tokenizer = AutoTokenizer.from_pretrained(run / "model")
        lines = map(json.loads, (run / "evaluation.jsonl").read_text().splitlines())
        for row, measured in zip(pairs[12:], lines, strict=True):
            for answer in ("chosen", "rejected"):
                turns = [{"role": "user", "content": row["prompt"]}, {"role": "assistant", "content": row[answer]}]
                ids = tokenizer.apply_chat_template(turns, return_dict=False, return_tensors="pt")
                with torch.no_grad():
                    reward = model(input_ids=ids).logits[0, 0].item()
                assert measured[f"reward_{answer}"] == pytest.approx(reward, rel=1e-3, abs=1e-4)

    grader = "{type: reward_model, name: preferred, model: 'run:" + run.name + "'}"
    kto = ["method=kto", "name=learned", "kto.n_epochs=2", "backend.learning_rate=0.01"]
    command(tmp_path, *line, *kto, f"evaluation.graders=[{grader}]")
    found = metrics(run_of(tmp_path, "learned"))
    assert found["eval/reward_accuracy"] == 1.0
    assert found["eval/reward_margin"] == pytest.approx(found["eval/reward_chosen"] - found["eval/reward_rejected"])
    assert 0 < found["eval/preferred"] < 1

    assert "a reward model gives no answers" in command(tmp_path, "runner.chat", run.name, code=2)
    tuned = [each for each in line if not each.startswith("model.source")] + [f"model.source=run:{run.name}"]
    assert "a reward model, which scores answers and gives none" in command(tmp_path, *tuned, "mode=plan", code=2)
