"""vLLM's server on this machine: it has the base model, and is handed the adapter whenever that has learned.

https://docs.vllm.ai/en/latest/features/lora.html#dynamically-serving-lora-adapters
"""

import atexit
import hashlib
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar

import msgspec
from peft import PeftModel, get_peft_model_state_dict
from torch import Tensor

from runner import models
from runner.backends.local import generation
from runner.backends.local.keys import Local
from runner.backends.local.model import load
from runner.errors import ServiceError
from runner.models import model_reference
from runner.record.samples import Sampling
from runner.serving import client
from runner.serving.engines.vllm import Vllm
from runner.serving.server import Served, served
from runner.training.engine import OnAnswer, Sampled

BASE = "base"
RANKS = (8, 16, 32, 64, 128, 256, 320, 512)
"""What vLLM takes as `--max-lora-rank`."""
AT_ONCE = 256
"""Prompts that are asked at a time; vLLM computes together what fits."""


class _Logprobs(msgspec.Struct):
    token_logprobs: list[float]


class _Choice(msgspec.Struct):
    index: int
    logprobs: _Logprobs
    token_ids: list[int]


class _Completion(msgspec.Struct):
    choices: list[_Choice]


class LearningVllm(Vllm):
    """vLLM as it is started for a base model and adapters of it that come while it runs."""

    environment: ClassVar[Mapping[str, str]] = {**Vllm.environment, "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"}

    def __init__(self, settings: Local, seed: int) -> None:
        super().__init__(settings.runtime.vllm)
        self._settings, self._seed = settings, seed

    def command(self, folder: Path, model: str, port: int) -> list[str]:
        """Return `vllm serve FOLDER` with room for an adapter."""
        return [*super().command(folder, model, port), "--enable-lora"]

    def options(self, folder: Path) -> dict[str, str | int | float]:
        """Return how the base model is loaded, and what the answers and their log-probabilities are of."""
        settings = self._settings
        rank = next((each for each in RANKS if each >= settings.lora.rank), settings.lora.rank)
        return {
            **super().options(folder),
            "max-lora-rank": rank, "dtype": settings.dtype, "max-model-len": settings.max_length,
            "gpu-memory-utilization": settings.runtime.vllm_memory,
            # One for all: seeds of single requests are slow on a GPU, and on a CPU vLLM 0.32 fails with them. What is
            # drawn depends on what is computed together, so that a run that is repeated draws other answers.
            "seed": self._seed,
            # Those of the distribution that is drawn from, at its temperature.
            "logprobs-mode": "processed_logprobs",
        }  # fmt: skip


class AdapterServer:
    """A base model and the adapter that learns, at a server that is started when it is first asked."""

    def __init__(self, model: PeftModel, folder: Path, settings: Local, seed: int) -> None:
        self._model, self._folder, self._settings, self._seed = model, folder.absolute(), settings, seed
        self._held = ExitStack()
        self._served: Served | None = None
        # The folder of each adapter that the server has: where it is short of room it reads it again.
        self._adapter, self._adapters = "", Path()

    def answers(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return answers by the adapter as it is now. Raises `ServiceError` with the server's last words."""
        server = self._served or self._started()
        try:
            self._hand_over(server.url)
            return self._asked(server.url, prompts, sampling, on_answer)
        except ServiceError as error:
            raise ServiceError(f"vLLM: {error}; it printed at last: {server.last_words()}") from error

    def close(self) -> None:
        """End the server."""
        self._held.close()
        self._served, self._adapter = None, ""

    def _started(self) -> Served:
        # Also where the run is stopped or fails: the process ends, and nobody closes anything.
        atexit.register(self.close)
        self._adapters = Path(self._held.enter_context(TemporaryDirectory()))
        folder = self._folder
        if model_reference.read(folder) is not None:  # of an earlier run: a form of ours, with adapters perhaps
            folder = Path(self._held.enter_context(TemporaryDirectory()))
            load(self._folder, str(self._settings.dtype)).save_pretrained(folder)
            models.copy_tokenizer(models.tokenizer_folder(self._folder), folder)
        self._served = self._held.enter_context(served(LearningVllm(self._settings, self._seed), folder, BASE))
        return self._served

    def _hand_over(self, url: str) -> None:
        """Let the server load the adapter as it is now, unless it has it; the one that it had before is unloaded."""
        # By content, not by step: a run that was resumed, or a result that was loaded, has others at the same step.
        name, before = _name(get_peft_model_state_dict(self._model)), self._adapter
        if name == before:
            return
        self._model.save_pretrained(self._adapters / name)
        client.post(f"{url}/load_lora_adapter", {"lora_name": name, "lora_path": str(self._adapters / name)})
        self._adapter = name
        if before:
            client.post(f"{url}/unload_lora_adapter", {"lora_name": before})
            shutil.rmtree(self._adapters / before)

    def _asked(
        self, url: str, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer
    ) -> list[list[Sampled]]:  # fmt: skip
        found: dict[int, list[Sampled]] = {}
        with ThreadPoolExecutor(AT_ONCE) as pool:
            asked = {pool.submit(self._complete, url, each, sampling): place for place, each in enumerate(prompts)}
            try:
                for future in as_completed(asked):
                    found[asked[future]] = answers = future.result()
                    for number, answer in enumerate(answers):
                        on_answer(asked[future], number, answer)
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [found[place] for place in range(len(prompts))]

    def _complete(self, url: str, prompt: Sequence[int], sampling: Sampling) -> list[Sampled]:
        # Several greedy answers are one, and vLLM refuses to give more.
        many, ends = (sampling.per_prompt if sampling.temperature else 1), generation.ends(self._model)
        body: dict[str, client.Json] = {
            "model": self._adapter, "prompt": list(prompt), "n": many,
            "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "logprobs": 0, "return_token_ids": True, "stop_token_ids": ends,
        }  # fmt: skip
        choices = client.decoded(client.post(f"{url}/completions", body), url, _Completion).choices
        answers = [
            Sampled(each.token_ids, each.logprobs.token_logprobs, bool(each.token_ids) and each.token_ids[-1] in ends)
            for each in sorted(choices, key=lambda each: each.index)
        ]
        return answers * (sampling.per_prompt // many)


def _name(weights: Mapping[str, Tensor]) -> str:
    digest = hashlib.sha256()
    for key in sorted(weights):
        digest.update(weights[key].detach().float().cpu().numpy().tobytes())
    return f"adapter-{digest.hexdigest()[:16]}"
