"""MLX by mlx-lm, on Apple's processors and on Linux's CPUs, in a process of its own: its arithmetic and its search;
template and tokenizer are those of transformers, which mlx-lm uses.

Called as `python -m runner.exporting.programs.mlx_lm FOLDER`, questions on standard input, evidence out.
"""

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from runner.data.json_value import Json
from runner.exporting.evidence import Evidence, Ids, Questions, Scored
from runner.exporting.programs import FORCED, Packages, answer
from runner.hosted.prompts import chat_messages

if TYPE_CHECKING:
    from mlx.core import array
    from mlx.nn import Module
    from mlx_lm.tokenizer_utils import TokenizerWrapper


class Mlx(Packages):
    """mlx-lm."""

    packages = ("mlx-lm", "mlx")
    extra = "mlx"


def _ids(tokenizer: "TokenizerWrapper", messages: list[Json], answer_next: bool) -> Ids:
    found = tokenizer.apply_chat_template(messages, add_generation_prompt=answer_next, return_dict=False)
    return [int(each) for each in found]


def _logps(model: "Module", row: Scored) -> list[float]:
    import mlx.core as mx

    # The logits of a token predict the next one.
    logits = model(mx.array([[*row.prompt, *row.answer]]))[0, len(row.prompt) - 1 : -1].astype(mx.float32)
    rows = logits - mx.logsumexp(logits, axis=-1, keepdims=True)
    return [float(rows[place, token]) for place, token in enumerate(row.answer)]


def _said(
    model: "Module",
    tokenizer: "TokenizerWrapper",
    prompt: Ids,
    limit: int,
    processors: "list[Callable[[array, array], array]] | None" = None,
) -> Iterator[int]:
    """Yield the tokens of a greedy answer without the one that ends it."""
    from mlx_lm import stream_generate

    for each in stream_generate(model, tokenizer, prompt, limit, logits_processors=processors):
        # The last one is repeated with the text that was still held back; after an end it is that end.
        if each.finish_reason is None or (each.finish_reason == "length" and each.generation_tokens == limit):
            yield int(each.token)


def _stops(model: "Module", tokenizer: "TokenizerWrapper", prompt: Ids, end: int) -> bool:
    """Say whether an answer ends with an id that the model is made to say, with room left for more."""

    def forced(tokens: "array", logits: "array") -> "array":
        logits[..., end] += FORCED
        return logits

    return not list(_said(model, tokenizer, prompt, 3, [forced]))


def answers(folder: str, asked: Questions) -> Evidence:
    """Return what the model in a folder says to questions."""
    from mlx_lm import load

    model, tokenizer = load(folder)
    prompts = [_ids(tokenizer, chat_messages(each), True) for each in asked.prompts]
    said = [list(_said(model, tokenizer, each, asked.max_new_tokens)) for each in prompts]
    return Evidence(
        prompts=prompts,
        conversations=[_ids(tokenizer, chat_messages(each.messages), False) for each in asked.scored],
        logps=[_logps(model, each) for each in asked.scored],
        replies=[tokenizer.decode(each, skip_special_tokens=True).strip() for each in said],
        ends=sorted(tokenizer.eos_token_ids),
        stops=[_stops(model, tokenizer, prompts[0], end) for end in asked.ends],
    )


PROGRAM = Mlx

if __name__ == "__main__":
    answer(answers)
