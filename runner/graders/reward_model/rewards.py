"""The reward of a conversation by a model that is loaded here: transformers' own forward call, one answer at a time."""

from collections.abc import Callable, Sequence
from functools import lru_cache

import torch

from runner import models
from runner.backends.local.reward_model import head
from runner.data.rows import Message
from runner.errors import ModelError
from runner.models.chat.tokenizer import ChatTokenizer


# Each batch of sampled answers is graded by itself, and the model is loaded once. One at most: it takes memory.
@lru_cache(1)
def loaded(source: str) -> Callable[[Sequence[Message]], float]:
    """Return the reward of a conversation that ends with an answer, by the model of a source.

    Raises `ModelError` where it cannot be loaded, or is no reward model.
    """
    folder = models.fetch(source)
    model = head.load(folder).to("cuda" if torch.cuda.is_available() else "cpu")
    if model.config.num_labels != 1:
        raise ModelError(f"{source}: its head has {model.config.num_labels} outputs; a reward model has one.")
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder))

    @torch.inference_mode()
    def reward(messages: Sequence[Message]) -> float:
        # The whole conversation, as in training: the template writes the end of the answer's turn.
        ids = torch.tensor([tokenizer.encode(tokenizer.render(messages))], device=model.device)
        return float(model(input_ids=ids, use_cache=False).logits[0, 0])

    return reward
