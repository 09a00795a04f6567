"""Models in memory: a base from its folder, adapters put on it, and what a run leaves behind."""

import json
import shutil
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError

from runner import distributed, models
from runner.backends.local.keys import Local
from runner.backends.local.reward_model.head import has_head
from runner.errors import ModelError, RequestError
from runner.models import model_reference, vision
from runner.models.source import ModelIdentity
from runner.record import layout

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

UNREADABLE = (OSError, ValueError, KeyError, SafetensorError)
"""What transformers and peft raise of weights that are damaged, missing or of another model."""


def device(wanted: str) -> torch.device:
    """Return the device asked for; `auto` takes a GPU where there is one.

    Each of several processes gets a GPU of its own. Raises `RequestError` where torch does not find that device.
    """
    found = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if wanted == "auto":
        wanted = "cuda" if found["cuda"] else "cpu"
    if not found[wanted]:
        here = " or ".join(name for name, there in found.items() if there)
        raise RequestError(
            f"backend.runtime.device: got {wanted}, which torch does not find here; allowed here: {here}."
        )
    rank = distributed.this_rank()
    if rank.world_size == 1 or wanted == "cpu":
        return torch.device(wanted)
    # MPS is one device, and NCCL wants a GPU of its own for each rank.
    if wanted != "cuda" or rank.local_world_size > torch.cuda.device_count():
        raise RequestError(
            f"backend.runtime.device: got {wanted} for {rank.local_world_size} processes on a machine with "
            f"{torch.cuda.device_count()} CUDA GPUs; start no more than one a GPU, or set backend.runtime.device=cpu."
        )
    torch.cuda.set_device(rank.local_rank)
    return torch.device(wanted, rank.local_rank)


def load(folder: Path, dtype: str = "float32", trust_remote_code: bool = False, **more: object) -> "PreTrainedModel":
    """Return the model that a folder describes, with all its adapters merged into the weights.

    `more` are further arguments for transformers. Raises `ModelError` where it cannot load the model.
    """
    models.refuse_reward_model(folder)
    found = model_reference.read(folder)
    if found is None or found.full:
        return _load_plain(folder, dtype, trust_remote_code, **more)
    from peft import PeftModel

    model = load(models.fetch(found.base.source), dtype, trust_remote_code)
    # A run that started from another run's adapters has them all: each is merged before the next is put on.
    for adapter in found.adapters:
        try:
            model = PeftModel.from_pretrained(model, str(folder / adapter)).merge_and_unload()
        except UNREADABLE as error:
            raise _unreadable(folder / adapter, error) from error
    return model


def start(folder: Path, settings: Local, on: torch.device) -> "PreTrainedModel":
    """Return the model that training starts from, on a device, its weights in the type and bits asked for.

    Raises `RequestError` where weights in few bits would have to take up adapters.
    """
    quantization, dtype, trust = settings.quantization, str(settings.dtype), settings.trust_remote_code
    if quantization == "none":
        return load(folder, dtype, trust).to(on)
    found = model_reference.read(folder)
    if found is not None and not found.full:
        raise RequestError(
            f"backend.quantization: got {quantization}, but {folder} has adapters, which merge only into whole "
            "weights; use quantization=none, or start from the base model."
        )
    from transformers import BitsAndBytesConfig

    four = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4", "bnb_4bit_compute_dtype": getattr(torch, dtype)}
    bits = BitsAndBytesConfig(**(four if quantization == "nf4" else {"load_in_8bit": True}))
    # bitsandbytes quantises while weights are put on the device; such a model may refuse `.to`.
    return load(folder, dtype, trust, quantization_config=bits, device_map={"": on})


def prepare(model: "PreTrainedModel", settings: Local, seed: int) -> "PreTrainedModel | PeftModel":
    """Make a loaded model ready to learn: a fresh adapter on frozen weights, or every weight unlocked.

    The model's own dropout is switched off, since policy and reference are to differ by what is learned alone.
    """
    _without_dropout(model)
    if settings.runtime.gradient_checkpointing:
        _checkpoint_activations(model)
    if settings.tuning == "full":
        # Every weight, the embeddings and the output layer included.
        return model.requires_grad_(True)
    from peft import LoraConfig, get_peft_model

    # A starts at random and B at zero: the seed decides the adapter, and the model is unchanged by it at
    # first.
    torch.manual_seed(seed)
    lora = settings.lora
    _check_targets(model, lora.targets)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.targets,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        # With a head for sequences peft lets it learn as a whole (`modules_to_save`), next to the adapter.
        task_type="SEQ_CLS" if has_head(model) else "CAUSAL_LM",
    )
    try:
        return get_peft_model(model, config)
    except ValueError as error:
        raise ModelError(f"backend.lora.targets: got {lora.targets!r}; {str(error).splitlines()[0]}") from error


def _without_dropout(model: "PreTrainedModel") -> None:
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        if isinstance(getattr(module, "attention_dropout", None), float):
            # Attention layers keep theirs as a number, not a module.
            module.attention_dropout = 0.0


def _checkpoint_activations(model: "PreTrainedModel") -> None:
    """Let each block forget its activations while training and compute them again with the same random numbers."""
    # transformers 5 renamed it on the way.
    enable = getattr(model, "activation_checkpointing_enable", None) or model.gradient_checkpointing_enable
    try:
        enable({"use_reentrant": False})
    except ValueError as error:
        raise RequestError(
            f"backend.runtime.gradient_checkpointing: {type(model).__name__} does not support it; leave it out."
        ) from error


def _check_targets(model: "PreTrainedModel", targets: str | list[str]) -> None:
    layers = {name.rpartition(".")[2] for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    # GPT-2's linear layers are transformers' own Conv1D.
    layers |= {name.rpartition(".")[2] for name, module in model.named_modules() if type(module).__name__ == "Conv1D"}
    wanted = [targets] if isinstance(targets, str) else targets
    unknown = [name for name in wanted if name != "all-linear" and name.rpartition(".")[2] not in layers]
    if unknown:
        allowed = ", ".join(sorted(layers))
        raise RequestError(
            f"backend.lora.targets: the model has no layer {unknown[0]}; allowed: all-linear, {allowed}."
        )


def untouched(model: "PreTrainedModel | PeftModel") -> AbstractContextManager[object]:
    """Switch the adapter off inside the block; without one, the model has to be untouched still."""
    context: AbstractContextManager[object] = (
        model.disable_adapter() if hasattr(model, "disable_adapter") else nullcontext()
    )
    return context


def save(
    model: "PreTrainedModel | PeftModel", folder: Path, plan_id: str, start: ModelIdentity
) -> model_reference.ModelReference:
    """Write what was learned as a model reference: this adapter after those of the start, or all weights."""
    draft = folder.with_name(f".{folder.name}")
    shutil.rmtree(draft, ignore_errors=True)
    draft.mkdir(parents=True)
    source = models.fetch(start.source)
    before = model_reference.read(source)
    if not hasattr(model, "disable_adapter"):
        model.save_pretrained(draft)
        # save_pretrained writes weights and configuration only; the folder is to be loaded by itself.
        for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
            if (models.tokenizer_folder(source) / name).exists():
                shutil.copy(models.tokenizer_folder(source) / name, draft / name)
        found = model_reference.write(draft, plan_id, start, [], full=True)
    else:
        earlier = before.adapters if before and not before.full else []
        for name in earlier:
            shutil.copytree(source / name, draft / name)
        adapter = f"adapter-{len(earlier) + 1}"
        _save_adapter(model, draft / adapter, start)
        base = before.base if before and not before.full else start
        found = model_reference.write(draft, plan_id, base, [*earlier, adapter], full=False)
    shutil.rmtree(folder, ignore_errors=True)
    # Killed before this line there is no model, but neither is there a `save` in the journal: it is done
    # again.
    draft.rename(folder)
    return found


def _save_adapter(model: "PeftModel", folder: Path, start: ModelIdentity) -> None:
    model.save_pretrained(str(folder))
    # peft's model card: a form with nothing filled in.
    (folder / layout.CARD).unlink(missing_ok=True)
    # peft notes the folder that the base was loaded from, which means nothing on another machine.
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"base_model_name_or_path": start.source}, indent=2))


def _load_plain(folder: Path, dtype: str, trust_remote_code: bool, **more: object) -> "PreTrainedModel":
    try:
        return models.quiet_transformers().AutoModelForCausalLM.from_pretrained(
            folder, dtype=getattr(torch, dtype), trust_remote_code=trust_remote_code, **more
        )
    except UNREADABLE as error:
        if vision.sees(folder):
            raise ModelError(
                f"model.source: {folder} is a model that sees images, which transformers does not load as a language "
                "model; choose one that it does, or train it by sessions (backend=foundry_sessions, tinker)."
            ) from error
        raise _unreadable(folder, error) from error


def _unreadable(folder: Path, error: Exception) -> ModelError:
    return ModelError(f"model.source: {folder} cannot be loaded: {str(error).splitlines()[0]}")
