"""The limit on the tokens of a row, for backends that cut rows themselves."""

from functools import partial

from runner import models
from runner.data.survey import TokenLimit
from runner.models.chat_tokenizer import ChatTokenizer


def limit_of(source: str, max_length: int) -> TokenLimit | None:
    """Return `backend.max_length` as a limit that counts by a model's tokenizer, None where that is not here."""
    folder = models.cached(source)
    if folder is None:
        return None
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder))
    rows, prompts = (partial(count, at_most=max_length) for count in (tokenizer.counts, tokenizer.prompt_counts))
    return TokenLimit(max_length, rows, prompts, key="backend.max_length")
