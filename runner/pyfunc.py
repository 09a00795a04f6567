"""A model reference as MLflow loads it: `mlflow.pyfunc.load_model(uri).predict(["a question", …])`.

Needs the runner installed; the base model is fetched by its source and the adapters come with the reference.
"""

from pathlib import Path
from typing import Any

from runner.data.rows import Message


class Answerer:
    """A loaded model that answers prompts."""

    def __init__(self, folder: Path) -> None:
        from runner.backends.local import model
        from runner.models import tokenizer_folder
        from runner.models.chat_tokenizer import ChatTokenizer

        self.model = model.load(folder)
        self.tokenizer = ChatTokenizer(tokenizer_folder(folder))

    def predict(self, model_input: Any, params: dict[str, Any] | None = None) -> list[str]:
        """Return the greedy answer to each prompt; `params` may hold `max_new_tokens` (128)."""
        limit = (params or {}).get("max_new_tokens", 128)
        return [self.answer((Message(role="user", content=str(text)),), limit) for text in _texts(model_input)]

    def answer(self, prompt: tuple[Message, ...], max_new_tokens: int = 128) -> str:
        """Return the greedy answer to one conversation."""
        from runner.backends.local.generate import answers

        return answers(self.model, self.tokenizer, [prompt], max_new_tokens)[0][0]


def _texts(model_input: Any) -> list[str]:
    """Return the prompts of a list, or of a data frame's first column."""
    return list(model_input.iloc[:, 0]) if hasattr(model_input, "iloc") else list(model_input)


def _load_pyfunc(path: str) -> Answerer:
    return Answerer(Path(path))
