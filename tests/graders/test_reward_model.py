"""The grader reward_model: the reward of a model that transformers loads, mapped to 0 to 1."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from runner.errors import ModelError, RequestError
from runner.evaluation.rehearsal.tried import try_out
from runner.graders import Grade, Subject
from runner.record.graded import Asked
from tests.graders.asking import grader, subject

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def scoring(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model that scores, as any library writes it."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder = tmp_path_factory.mktemp("reward") / "model"
    torch.manual_seed(1)
    model = AutoModelForSequenceClassification.from_pretrained(tiny_model, num_labels=1)
    model.score.weight.data.normal_(0, 1)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(folder)
    return folder


def grade(given: Subject, **fields: Any) -> Grade:
    with grader("reward_model", **fields).grading(None) as graded:
        return graded(given)


def reward(folder: Path, text: str) -> float:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    turns = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": text}]
    ids = tokenizer.apply_chat_template(turns, tokenize=True, return_dict=False, return_tensors="pt")
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return model.eval()(input_ids=ids).logits[0, 0].item()


def test_a_score_is_the_sigmoid_of_the_models_reward(scoring: Path) -> None:
    found = grade(subject("Air scatters light.", "Why?"), model=f"path:{scoring}")
    expected = reward(scoring, "Air scatters light.")
    assert found.score == pytest.approx(1 / (1 + math.exp(-expected)), rel=1e-5)
    assert found.reason == f"reward {expected:.3f}"
    scaled = grade(subject("Air scatters light.", "Why?"), model=f"path:{scoring}", shift=0.5, scale=2.0)
    assert scaled.score == pytest.approx(1 / (1 + math.exp(-(expected - 0.5) / 2)), rel=1e-5)
    kept = grade(subject("Air scatters light.", "Why?"), model=f"path:{scoring}", mapping="none")
    assert kept.score == pytest.approx(expected, rel=1e-5)


def test_a_reward_far_from_zero_is_a_score_of_zero_or_one(scoring: Path) -> None:
    scores = [grade(subject("Air.", "Why?"), model=f"path:{scoring}", shift=shift).score for shift in (1e6, -1e6)]
    assert scores == [0.0, 1.0]


def test_a_prompt_that_is_no_conversation_is_an_error_and_no_score(scoring: Path) -> None:
    found = grade(Subject({"messages": "Why?"}, subject("").sample), model=f"path:{scoring}")
    assert found.score is None
    assert found.error.startswith("the prompt cannot be read: ")


def test_a_model_that_answers_is_refused(tiny_model: Path) -> None:
    with pytest.raises(ModelError, match="no reward model, which has a head with one output"):
        grade(subject("Air."), model=f"path:{tiny_model}")


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"model": "reward"}, "model: got 'reward'; allowed: one of hf:…, "),
        ({"model": "run:reward", "scale": 0.0}, "scale: got 0; allowed: more than 0."),
        ({"model": "run:reward", "mapping": "tanh"}, "Invalid enum value 'tanh'"),
        ({}, "missing required field `model`"),
    ],
)
def test_a_mistake_in_the_configuration_is_reported(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError) as caught:
        grader("reward_model", **fields)
    assert message in str(caught.value)


def test_a_plan_loads_no_model_to_try_it_also_within_a_formula() -> None:
    part = {"type": "reward_model", "name": "preferred", "model": "run:gone"}
    made = [
        grader("reward_model", name="preferred", model="run:gone"),
        grader("multi", name="both", graders={"preferred": part}, calculate_output="preferred"),
    ]
    rows = [Asked(row="1", prompt=(), fields={"reference": "Gas."})]
    assert [each.scores for each in try_out(rows, made)] == [{}, {}]
