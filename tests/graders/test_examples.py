"""Every grader in conf/grader/ can be used as its first line says, and every type has one."""

import json
from pathlib import Path

import pytest
import yaml

from runner import graders
from runner.graders import Sample, Subject, configuration, make

ROOT = Path(__file__).parents[2]
EXAMPLES = sorted((ROOT / "conf" / "grader").glob("*.yaml"))


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_is_a_grader_and_says_how_it_is_used(path: Path) -> None:
    written = yaml.safe_load(path.read_text("utf-8"))
    made = make(written, path.name)
    assert made.name, "its scores have a name"
    assert make(configuration(made), "again") == made
    assert path.read_text("utf-8").startswith(f"# python -m runner evaluation.graders=[{path.stem}]  ")


@pytest.mark.parametrize(
    ("name", "text", "score"),
    [
        ("string_check", "It is 42.", 1.0),
        ("text_similarity", "42", 1.0),
        ("multi", "It is 42.", 1.0),
        ("multi", "It is 43.", 0.0),
        ("python", "It is 21.", 0.5),
        ("json_schema", '{"answer": 42}', 1.0),
        ("length", "word " * 40, 1 / 3),
        ("pattern", "The question has the answer 42.", 1.0),
        ("pattern", "Bananas are yellow and bent.", 0.0),
    ],
)
def test_an_example_grades(name: str, text: str, score: float) -> None:
    made = make(yaml.safe_load((ROOT / "conf" / "grader" / f"{name}.yaml").read_text("utf-8")), name)
    asked = {"messages": [{"role": "user", "content": "What is the answer to the question?"}], "reference": "42"}
    assert made.grade(Subject(asked, Sample(text))).score == pytest.approx(score)


def test_the_house_style_is_that_of_its_data_set() -> None:
    style = yaml.safe_load((ROOT / "conf" / "dataset" / "house_style.yaml").read_text("utf-8"))["style"]
    made = make(yaml.safe_load((ROOT / "conf" / "grader" / "house_style.yaml").read_text("utf-8")), "house_style")
    assert getattr(made, "pattern", "") == style
    rows = ROOT / "runner" / "data" / "embedded" / "house_style.validation.dpo.jsonl"
    scores = {"preferred_output": [], "non_preferred_output": []}
    for row in map(json.loads, rows.read_text("utf-8").splitlines()):
        for key, found in scores.items():
            found.append(made.grade(Subject(row["input"], Sample(row[key][0]["content"]))).score)
    assert set(scores["non_preferred_output"]) == {0.0}
    # One of 32 answers about a fake e-mail shares no word with its question.
    assert scores["preferred_output"].count(1.0) == len(scores["preferred_output"]) - 1


def test_every_type_is_explained() -> None:
    page = (ROOT / "docs" / "graders.md").read_text("utf-8")
    assert [name for name in graders.names() if f"`{name}`" not in page] == []
