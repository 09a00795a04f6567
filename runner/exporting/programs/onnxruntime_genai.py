"""ONNX Runtime by onnxruntime-genai: its own template engine, tokenizer, arithmetic, search, in a process of its own.

Called as `python -m runner.exporting.programs.onnxruntime_genai FOLDER`, questions on standard input, evidence out.
Source: https://onnxruntime.ai/docs/genai/api/python.html
"""

from typing import TYPE_CHECKING

import msgspec
import numpy as np

from runner.data.json_value import Json
from runner.exporting.evidence import Evidence, Ids, Questions, Scored
from runner.exporting.programs import FORCED, Packages, answer
from runner.hosted.prompts import chat_messages

if TYPE_CHECKING:
    from onnxruntime_genai import Generator, Model, Tokenizer


class OnnxRuntime(Packages):
    """onnxruntime-genai."""

    packages = ("onnxruntime-genai", "onnxruntime")
    extra = "onnx"


def _ids(tokenizer: "Tokenizer", messages: list[Json], answer_next: bool) -> Ids:
    text = tokenizer.apply_chat_template(msgspec.json.encode(messages).decode(), add_generation_prompt=answer_next)
    return [int(each) for each in tokenizer.encode(text)]


def _begun(model: "Model", ids: Ids, more: int) -> "Generator":
    """Return what has read some tokens and may say a number of further ones, greedily."""
    import onnxruntime_genai as genai

    params = genai.GeneratorParams(model)
    # The cache is allocated for all of `max_length`, by default the model's whole context.
    params.set_search_options(max_length=len(ids) + more, do_sample=False)
    begun = genai.Generator(model, params)
    begun.append_tokens(np.array(ids, dtype=np.int32))
    return begun


def _logps(model: "Model", row: Scored) -> list[float]:
    ids = [*row.prompt, *row.answer]
    # All positions: `get_logits` has those of the last one alone. The logits of a token predict the next one.
    logits = _begun(model, ids, 1).get_output("logits")[0, len(row.prompt) - 1 : -1].astype(np.float64)
    logits -= logits.max(axis=-1, keepdims=True)
    rows = logits - np.log(np.exp(logits).sum(axis=-1, keepdims=True))
    return [float(rows[place, token]) for place, token in enumerate(row.answer)]


def _said(model: "Model", prompt: Ids, limit: int) -> "np.ndarray[tuple[int], np.dtype[np.int32]]":
    begun = _begun(model, prompt, limit)
    while not begun.is_done():
        begun.generate_next_token()
    said: np.ndarray[tuple[int], np.dtype[np.int32]] = begun.get_sequence(0)[len(prompt) :]
    return said


def _stops(model: "Model", prompt: Ids, end: int) -> bool:
    """Say whether an answer ends with an id that the model is made to say, with room left for more."""
    begun = _begun(model, prompt, 3)
    logits = begun.get_logits()
    logits[..., end] += FORCED
    begun.set_logits(logits)
    begun.generate_next_token()
    return bool(begun.is_done())


def answers(folder: str, asked: Questions) -> Evidence:
    """Return what the model in a folder says to questions."""
    import onnxruntime_genai as genai

    model = genai.Model(folder)
    tokenizer = genai.Tokenizer(model)
    prompts = [_ids(tokenizer, chat_messages(each), True) for each in asked.prompts]
    return Evidence(
        prompts=prompts,
        conversations=[_ids(tokenizer, chat_messages(each.messages), False) for each in asked.scored],
        logps=[_logps(model, each) for each in asked.scored],
        replies=[tokenizer.decode(_said(model, each, asked.max_new_tokens)).strip() for each in prompts],
        ends=[int(each) for each in tokenizer.eos_token_ids],
        stops=[_stops(model, prompts[0], end) for end in asked.ends],
    )


PROGRAM = OnnxRuntime

if __name__ == "__main__":
    answer(answers)
