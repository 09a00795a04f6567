"""What samples answers by the weights that learn: one file each, chosen by `backend.generator`.

own.py    our own loop over the model in this process
vllm.py   vLLM in a process of its own, which is handed the adapter whenever it has learned
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

from runner.backends.local.keys import Local
from runner.errors import RequestError
from runner.models.chat.tokenizer import TokenRow
from runner.record.samples import Sampling
from runner.serving.engines.vllm import find
from runner.training.engine import OnAnswer, Sampled, TokenLogps

Forward = Callable[[Sequence[TokenRow]], TokenLogps]
"""Scores the learned tokens of rows by the weights that learn."""


class Generator(ABC):
    """What answers prompts by the weights that an engine has at that moment."""

    @abstractmethod
    def sample(
        self, prompts: Sequence[Sequence[int]], sampling: Sampling, on_answer: OnAnswer, forward: Forward
    ) -> list[list[Sampled]]:  # fmt: skip
        """Return `sampling.per_prompt` answers to each prompt, on all ranks the same.

        Log-probabilities are those of the weights that learn, in nats: where another program computes the answers,
        `forward` gives them. `on_answer` hears of each answer when it is there. Raises `ServiceError` where that
        program fails, or answers by other weights.
        """


def choose(settings: Local, on_gpu: bool) -> tuple[str, str]:
    """Return the generator that `auto` means for answers that are learned from, and the reason."""
    if not on_gpu:
        return "own", "vLLM is faster on a GPU only"
    if find(settings.runtime.vllm) is None:
        return "own", f"the program {settings.runtime.vllm} is not found"
    if reason := lacks(settings):
        return "own", f"vLLM cannot be handed {reason}"
    return "vllm", "it is installed, and there is a GPU"


def refuse(settings: Local, graded: bool) -> None:
    """Raise `RequestError` where vLLM is asked for and cannot sample what is learned from."""
    if settings.generator != "vllm":
        return
    wrong = "" if graded else "with a method that learns from stored answers, which samples none while it learns"
    if not wrong and (reason := lacks(settings)):
        wrong = f"which cannot be handed {reason}"
    if not wrong and find(settings.runtime.vllm) is None:
        wrong = (
            f"but no program {settings.runtime.vllm} is found; install vLLM, in an environment of its own if need be, "
            "and name its program by backend.runtime.vllm"
        )
    if wrong:
        raise RequestError(f"backend.generator: got vllm, {wrong}; use generator=own.")


def lacks(settings: Local) -> str:
    """Return what vLLM takes no adapter of; empty where it takes them all."""
    # https://docs.vllm.ai/en/latest/features/lora.html; its server loads adapters at run time, and no other weights.
    if settings.tuning == "full":
        return "weights that all learn (backend.tuning=full)"
    if settings.lora.dora:
        return "DoRA's magnitudes (backend.lora.dora)"
    if settings.quantization != "none":
        return f"weights in few bits (backend.quantization={settings.quantization})"
    if settings.runtime.shard:
        return "weights that are shared out (backend.runtime.shard)"
    return ""
