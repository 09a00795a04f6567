"""A model as MLflow loads it answers all prompts together as it answers each alone."""

from pathlib import Path

import pandas as pd
import torch

from runner.data.rows import Message
from runner.pyfunc import Answerer

QUESTIONS = ["Why is the sky blue?", "How do I keep bread fresh?"]


def test_prompts_of_a_list_or_of_a_data_frame_get_the_answer_that_each_gets_alone(tiny_model: Path) -> None:
    torch.set_num_threads(1)
    model = Answerer(tiny_model)
    alone = [model.answer((Message(role="user", content=text),), max_new_tokens=6) for text in QUESTIONS]
    assert model.predict(QUESTIONS, {"max_new_tokens": 6}) == alone
    assert model.predict(pd.DataFrame({"text": QUESTIONS}), {"max_new_tokens": 6}) == alone


def test_a_temperature_draws_answers_that_the_seed_decides(tiny_model: Path) -> None:
    torch.set_num_threads(1)
    model = Answerer(tiny_model)
    how = {"max_new_tokens": 6, "temperature": 1.0, "top_p": 0.9}
    first = model.predict(QUESTIONS, how | {"seed": 1})
    assert model.predict(QUESTIONS, how | {"seed": 1}) == first
    assert model.predict(QUESTIONS, how | {"seed": 2}) != first
