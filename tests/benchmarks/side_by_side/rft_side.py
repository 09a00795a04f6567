"""Either side of bench_rft.py, driven through a pipe: answers sampled, an update on given answers, and both in turn.

    python -m tests.benchmarks.side_by_side.rft_side JSON

`JSON` names the side (`ours` or `trl`), the model's folder, prompts as token ids and as texts, given answers, dtype,
threads, and the lengths. Each turn has three parts: `generation`, `update` on the given answers, and a whole `step`.
"""

import json
import sys
import warnings
from collections.abc import Callable
from typing import Any

from tests.benchmarks.side_by_side.pipe import Gate, peak_resident_bytes

LEARNING_RATE = 1e-5
Part = Callable[[], dict[str, float]]


def ours(asked: dict[str, Any]) -> dict[str, Part]:  # noqa: PLR0915 (what a side has, in one place)
    """Return our parts: the in-process engine, and rollouts over it."""
    from pathlib import Path

    import torch

    from runner import graders, methods
    from runner.backends.local import model
    from runner.backends.local.keys import Local
    from runner.backends.local.machine import allocator
    from runner.backends.local.parallel.lanes import Lanes
    from runner.backends.local.parallel.schedule import TOKENS_AT_ONCE, count_lanes
    from runner.backends.local.scoring.scorer import Scorer
    from runner.backends.local.training.in_process import InProcessEngine
    from runner.backends.local.training.learner import Learner
    from runner.backends.local.training.recipe import LocalRecipe
    from runner.data.kinds.problem import Problem
    from runner.data.rows import Message
    from runner.methods.rft import RFT
    from runner.models.chat.tokenizer import ChatTokenizer, TokenRow
    from runner.record.samples import Sampling
    from runner.rollouts.rollouts import Rollouts
    from runner.training.examples import Example, Rewarded

    allocator.keep_freed()
    prompts, group, tokens = asked["prompts"], asked["group"], asked["tokens"]
    keys = RFT(grader="x", batch_size=len(prompts), group_size=group, max_new_tokens=tokens, n_epochs=1)
    keys, _ = methods.load("rft").resolve(keys, len(prompts))
    room, threads = TOKENS_AT_ONCE["cpu"], torch.get_num_threads()
    recipe = LocalRecipe(
        method=methods.load("rft"), hyperparameters=keys, learning_rate=LEARNING_RATE, schedule="constant",
        warmup_ratio=0.0, weight_decay=0.0, max_grad_norm=1.0, num_steps=10**6, seed=1, evaluate_every=10**6,
        checkpoint_every=10**6, keep_best=False, tokens_at_once=room,
    )  # fmt: skip
    folder = Path(asked["model"])
    scorer = Scorer(model.prepare(model.load(folder, asked["dtype"]), Local(), seed=1))
    scorer.lanes = Lanes(count_lanes(threads, room), threads)
    engine = InProcessEngine(Learner(scorer, recipe), Path("checkpoints"))
    rows = [Problem((Message(role="user", content=text),)) for text in asked["texts"]]
    grader = graders.make({"type": "length", "unit": "characters", "min": 100, "tolerance": 100}, "bench")
    rollouts = Rollouts(Path(), rows, ChatTokenizer(folder), recipe, keys, grader, None, lambda rows: [])
    given = [
        Example(
            TokenRow(prompt, tuple(answers), tuple([True] * len(answer) for answer in answers)),
            None,
            rewarded=Rewarded(tuple(asked["advantages"])),
        )
        for prompt, answers in zip(prompts, asked["answers"], strict=True)
    ]
    done = 0

    def generation() -> dict[str, float]:
        nonlocal done
        done += 1
        wanted = Sampling(max_new_tokens=tokens, per_prompt=group, temperature=1.0, seed=done)
        return {"tokens": float(sum(len(each.ids) for answers in engine.sample(prompts, wanted) for each in answers))}

    def update() -> dict[str, float]:
        values = engine.forward_backward_custom(given, recipe.loss)()
        return {"loss": values["loss"], "grad_norm": engine.optim_step(recipe.adam(0))()["grad_norm"]}

    def step() -> dict[str, float]:
        nonlocal done
        done += 1
        work = rollouts.batch(engine, done)
        try:
            while True:
                next(work)
        except StopIteration as end:
            batch = end.value
        values = engine.forward_backward_custom(batch.examples, batch.loss)() if batch.examples else {"loss": 0.0}
        engine.optim_step(recipe.adam(0))()
        return {"loss": values["loss"], "tokens": batch.values["answer_tokens"] * len(prompts) * group}

    return {"generation": generation, "update": update, "step": step}


def trl(asked: dict[str, Any]) -> dict[str, Part]:
    """Return TRL's parts: its GRPO trainer, a group to a micro-batch, which was fastest of what fits the memory."""
    import torch
    import transformers
    import trl as library
    from datasets import Dataset
    from peft import LoraConfig

    transformers.logging.set_verbosity_error()
    group, prompts, tokens = asked["group"], asked["prompts"], asked["tokens"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(asked["model"])
    rows = [{"prompt": [{"role": "user", "content": text}]} for text in asked["texts"]]
    args = library.GRPOConfig(
        output_dir="out", per_device_train_batch_size=group * len(prompts), num_generations=group, bf16=False,
        max_completion_length=tokens, gradient_checkpointing=False, use_cpu=True, report_to=[], loss_type="dapo",
        epsilon_high=0.28, beta=0.0, temperature=1.0, disable_tqdm=True, seed=1,
    )  # fmt: skip
    trainer = library.GRPOTrainer(
        model=transformers.AutoModelForCausalLM.from_pretrained(asked["model"], dtype=getattr(torch, asked["dtype"])),
        reward_funcs=lambda completions, **_: [min(1.0, len(each[0]["content"]) / 100) for each in completions],
        args=args, train_dataset=Dataset.from_list(rows), processing_class=tokenizer,
        peft_config=LoraConfig(r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear"),
    )  # fmt: skip
    learning = [each for each in trainer.model.parameters() if each.requires_grad]
    adam = torch.optim.AdamW(learning, lr=LEARNING_RATE, fused=True, weight_decay=0.0)
    repeated = [row for row in rows for _ in range(group)]
    trainer.model.train()

    def learn(batch: dict[str, Any]) -> dict[str, float]:
        # What TRL does with gradient accumulation, a micro-batch a group: `dapo` divides by the whole batch's tokens.
        trainer.current_gradient_accumulation_steps, trainer.args.steps_per_generation = 1, 1
        total = 0.0
        for start in range(0, len(repeated), group):
            part = {
                name: value[start : start + group] if torch.is_tensor(value) and value.ndim else value
                for name, value in batch.items()
            }
            loss = trainer._compute_loss(trainer.model, part)
            loss.backward()
            total += loss.item()
        norm = torch.nn.utils.clip_grad_norm_(learning, 1.0).item()
        adam.step()
        adam.zero_grad()
        return {"loss": total, "grad_norm": norm}

    def padded() -> dict[str, Any]:
        longest = max(map(len, prompts))
        ids = [[tokenizer.pad_token_id] * (longest - len(each)) + each for each in prompts for _ in range(group)]
        seen = [[0] * (longest - len(each)) + [1] * len(each) for each in prompts for _ in range(group)]
        answers = torch.tensor([answer for answers in asked["answers"] for answer in answers])
        return {
            "prompt_ids": torch.tensor(ids), "prompt_mask": torch.tensor(seen), "completion_ids": answers,
            "completion_mask": torch.ones_like(answers), "num_items_in_batch": torch.tensor(answers.numel()),
            "advantages": torch.tensor(asked["advantages"] * len(prompts)),
        }  # fmt: skip

    def generation() -> dict[str, float]:
        found = trainer._generate([row["prompt"] for row in repeated])[1]
        return {"tokens": float(sum(map(len, found)))}

    def step() -> dict[str, float]:
        batch = trainer._generate_and_score_completions(repeated)
        return learn(batch) | {"tokens": float(batch["completion_mask"].sum())}

    return {"generation": generation, "update": lambda: learn(padded()), "step": step}


def main() -> None:
    """Do a part whenever the gate lets one through."""
    warnings.filterwarnings("ignore")
    gate, asked = Gate(), json.loads(sys.argv[1])
    import torch

    torch.set_num_threads(asked["threads"])
    parts, said = {"ours": ours, "trl": trl}[asked["side"]](asked), dict[str, float]()
    for part in parts.values():
        part()  # what is done once, such as trying layouts, is no part of a step
    for _ in range(asked["rounds"]):
        for part in parts.values():
            gate.wait(said)
            said = part()
    gate.end(said, peak_resident_bytes())


if __name__ == "__main__":
    main()
