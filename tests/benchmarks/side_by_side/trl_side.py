"""TRL's side: its own trainers with the same model, adapter, rows and recipe, a step at a time or as a script.

    python -m tests.benchmarks.side_by_side.trl_side JSON          driven through a pipe by bench_trl.py
    python -m tests.benchmarks.side_by_side.trl_side JSON whole    a script as a user would have it: load, train, save

`JSON` names the model's folder, the method, `rows` in the order of the steps, and the trainer's own `settings`.
"""

import json
import sys
import warnings
from pathlib import Path
from typing import Any

from tests.benchmarks.side_by_side.pipe import Gate, peak_resident_bytes
from tests.benchmarks.side_by_side.rows import BATCH, MAX_LENGTH


def dataset(asked: dict[str, Any], whole: bool) -> Any:
    """Return the rows; for a script as `load_dataset` finds them, whose cache the next process uses too."""
    import datasets

    datasets.disable_progress_bars()
    if whole:
        return datasets.load_dataset("json", data_files=asked["rows"], split="train")
    rows = [json.loads(line) for line in Path(asked["rows"]).read_bytes().splitlines()]
    if asked["method"] == "sft":
        # The answer's tokens alone are learned, as on our side: `completion_only_loss` is on for such rows.
        rows = [{"prompt": row["messages"][:-1], "completion": row["messages"][-1:]} for row in rows]
    return datasets.Dataset.from_list(rows)


def make_trainer(asked: dict[str, Any], whole: bool, callbacks: list[Any]) -> Any:
    """Return the trainer, with the precomputed log-probabilities if they are asked for."""
    import torch
    import transformers
    import trl
    from peft import LoraConfig

    gpu = torch.cuda.is_available()
    if not gpu:
        torch.set_num_threads(asked["threads"])
    transformers.logging.set_verbosity_error()
    model = transformers.AutoModelForCausalLM.from_pretrained(
        asked["model"], dtype=torch.bfloat16 if gpu else torch.float32
    )
    trainer, settings = {"dpo": (trl.DPOTrainer, trl.DPOConfig), "sft": (trl.SFTTrainer, trl.SFTConfig)}[
        asked["method"]
    ]
    common = {
        "output_dir": "out", "seed": 42, "per_device_train_batch_size": BATCH, "num_train_epochs": 1,
        "max_length": MAX_LENGTH, "learning_rate": asked["learning_rate"], "lr_scheduler_type": "constant",
        "weight_decay": 0.0, "max_grad_norm": 1.0, "optim": "adamw_torch_fused", "use_cpu": not gpu,
        "train_sampling_strategy": "sequential", "dataloader_pin_memory": gpu, "disable_tqdm": True, "report_to": [],
        "logging_steps": 1, "save_strategy": "no",
    }  # fmt: skip
    return trainer(
        model=model, train_dataset=dataset(asked, whole), callbacks=callbacks,
        processing_class=transformers.AutoTokenizer.from_pretrained(asked["model"]),
        args=settings(**common | asked["settings"]),
        peft_config=LoraConfig(
            r=16, lora_alpha=32, lora_dropout=0.0, target_modules="all-linear", task_type="CAUSAL_LM"
        ),
    )  # fmt: skip


def driven(asked: dict[str, Any], gate: Gate) -> None:
    """Train at the parent's pace."""
    import torch
    from transformers import TrainerCallback

    said: dict[str, Any] = {}

    def settled() -> dict[str, Any]:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        return {name: float(value) for name, value in said.items()}

    class AtTheGate(TrainerCallback):
        """Waits before each step; what lies between two waits is a step."""

        def on_step_begin(self, *_: Any, **__: Any) -> None:
            gate.wait(settled())

        def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **_: Any) -> None:
            said.update(
                {name.replace("/", "_"): logs[name] for name in ("logps/chosen", "logps/rejected") if name in logs}
            )

    trainer = make_trainer(asked, False, [AtTheGate()])
    compute = trainer.compute_loss

    def compute_loss(*arguments: Any, **more: Any) -> Any:
        loss = compute(*arguments, **more)
        said["loss"] = (loss[0] if isinstance(loss, tuple) else loss).detach()  # the log rounds it
        return loss

    trainer.compute_loss = compute_loss
    trainer.train()
    gate.end(settled(), torch.cuda.max_memory_allocated() if torch.cuda.is_available() else peak_resident_bytes())


def main() -> None:
    """Be driven step by step, or train and save as a script does."""
    warnings.filterwarnings("ignore")
    asked = json.loads(sys.argv[1])
    if sys.argv[2:] == ["whole"]:
        trainer = make_trainer(asked, True, [])
        trainer.train()
        trainer.save_model()
    else:
        driven(asked, Gate())


if __name__ == "__main__":
    main()
