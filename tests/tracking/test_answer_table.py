"""Sampled answers on the way as tables of a run in MLflow: each once, whoever sends it, with every grader's score."""

import json
import shutil
from pathlib import Path

from runner.data.rows import Message
from runner.record import graded, layout
from runner.record.events import Graded
from runner.record.graded import Answer, AnswerGrade, Asked
from runner.tracking import answer_table

ROWS = [Asked(row=f"{number:032x}", prompt=(Message("user", f"{number} + 1?"),)) for number in range(3)]
ANSWERS = [
    Answer(model="policy", row=row.row, sample=number, text=f"{number}!", ended=not number)
    for row in ROWS
    for number in range(2)
]
GRADES = [
    AnswerGrade(model="policy", row=each.row, sample=each.sample, grader=grader, score=score, error=error, parts=parts)
    for each in ANSWERS
    for grader, score, error, parts in (
        ("reward", each.sample / 2, "", {"right": 1.0}), ("short", None, "no words", dict[str, float]()),
    )
]  # fmt: skip


def test_a_row_is_an_answer_with_the_score_of_each_grader_and_of_its_parts() -> None:
    found = answer_table.table(ROWS, ANSWERS, GRADES, cap=5)
    assert list(found) == ["prompt", "sample", "answer", "cut_off", "reward", "reward/right", "short", "error"]
    assert found["prompt"] == ["0 + 1?", "0 + 1?", "1 + 1?", "1 + 1?"], "rows are whole, and no more than the cap"
    assert [found[name][1] for name in found][1:] == [1, "1!", True, 0.5, 1.0, None, "no words"]


def test_each_evaluation_is_a_table_which_is_there_once_however_often_it_is_sent(database: str, tmp_path: Path) -> None:
    from mlflow import MlflowClient

    shutil.copytree(Path(database.removeprefix("sqlite:///")).parent, tmp_path / "store")
    client = MlflowClient(f"sqlite:///{tmp_path}/store/mlflow.db")
    experiment = client.create_experiment("answers", artifact_location=(tmp_path / "artifacts").as_uri())
    run = client.create_run(experiment).info.run_id
    for place in (f"{layout.CHECKPOINT_GRADES}/step-4", f"{layout.ROLLOUTS}/step-00000002"):
        (folder := tmp_path / place).mkdir(parents=True)
        for name, values in ((layout.PROBLEMS, ROWS), (layout.ANSWERS, ANSWERS), (layout.GRADES, GRADES)):
            graded.write(folder / name, values)  # type: ignore[type-var]
        for _ in range(2):
            answer_table.write(client, run, tmp_path, Graded(4, place))
    logged = json.loads(client.get_run(run).data.tags["mlflow.loggedArtifacts"])
    assert [each["path"] for each in logged] == [
        "answers/held_out/step-00000004.json", "answers/train/step-00000004.json",
    ]  # fmt: skip
    content = json.loads((tmp_path / "artifacts" / run / "artifacts" / logged[0]["path"]).read_bytes())
    assert len(content["data"]) == len(ANSWERS)
