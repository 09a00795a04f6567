"""A model reference as MLflow loads it: `mlflow.pyfunc.load_model(uri).predict(["a question", …])`.

Needs the runner installed; the base model is fetched by its source and the adapters come with the reference.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runner.data.rows import Message, Prompt, Turns
from runner.record.samples import Sampling


class Answerer:
    """A loaded model that answers prompts."""

    def __init__(self, folder: Path) -> None:
        from runner.backends.local import model
        from runner.models import tokenizer_folder
        from runner.models.chat.tokenizer import ChatTokenizer

        self.model = model.load(folder)
        self.tokenizer = ChatTokenizer(tokenizer_folder(folder))

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Return an answer to each prompt, all computed together.

        `params` may hold `max_new_tokens` (128) and, for answers that are not greedy, `temperature` (0), `top_p` (1)
        and `seed` (0).
        """
        given = params or {}
        how = {name: given[name] for name in ("temperature", "top_p", "seed") if name in given}
        prompts = [Prompt((Message(role="user", content=str(text)),)) for text in _texts(model_input)]
        return self._answers(prompts, Sampling(max_new_tokens=given.get("max_new_tokens", 128), **how))

    def answer(self, prompt: Turns, max_new_tokens: int = 128) -> str:
        """Return the greedy answer to one conversation."""
        return self._answers([Prompt(prompt)], Sampling(max_new_tokens=max_new_tokens))[0]

    def _answers(self, prompts: Sequence[Prompt], sampling: Sampling) -> list[str]:
        from runner.backends.local.generate import replies

        return [first.text for first, *_ in replies(self.model, self.tokenizer, prompts, sampling)]


def _texts(model_input: Any) -> list[str]:
    """Return the prompts of a list, or of a data frame's first column."""
    return list(model_input.iloc[:, 0]) if hasattr(model_input, "iloc") else list(model_input)


def _load_pyfunc(path: str) -> Answerer:
    return Answerer(Path(path))
