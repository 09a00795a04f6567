"""A LoRA model that sees images: transformers' own model and image processor, a sequence at a time."""

from collections.abc import Sequence
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from runner.backends.local.keys import Lora
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.models.chat.encoder import Encoder
from runner.record.samples import Sampling
from runner.training.engine import Sampled
from tests.emulator.primitives.trainer import RECIPE, Lesson, Logps, Picture, Trainer


def sees(folder: Path) -> bool:
    """Say whether a base model sees images."""
    return (folder / "preprocessor_config.json").exists()


class SeeingTrainer(Trainer):
    """A base model that sees, with an adapter on its language layers that learns; its vision is frozen."""

    # The adapter, the optimizer, states and checkpoints are those of other models; what differs is how one is called.
    def __init__(
        self, base: str, folder: Path, rank: int, seed: int, alpha: float | None = None, dtype: str = "float32"
    ) -> None:
        self.base, self.rank, self.seed, self.steps = base, rank, seed, 0
        self.alpha = Lora().alpha if alpha is None else alpha
        self.folder, self.processor = folder, _processor(folder)
        self.model = _adapted(folder, dtype, rank, self.alpha, seed)
        self.engine = InProcessEngine(Learner(Scorer(self.model, packed=False), RECIPE), Path("nowhere"))

    def forward(self, lessons: Sequence[Lesson]) -> Logps:
        """Return the log-probability of each predicted token."""
        with torch.no_grad():
            return [self._logps(lesson).numpy() for lesson in lessons]

    def forward_backward(self, lessons: Sequence[Lesson]) -> Logps:
        """Add the gradient of -Σ weights · logps; return the log-probabilities."""
        found = []
        for lesson in lessons:
            logps = self._logps(lesson)
            (-(torch.from_numpy(np.array(lesson.weights)).to(logps.dtype) * logps).sum()).backward()
            found.append(logps.detach().numpy())
        return found

    def sample(self, prompt: Sequence[int], sampling: Sampling, images: Sequence[Picture] = ()) -> list[Sampled]:
        """Return answers to a prompt, each with the log-probabilities of its tokens."""
        ends = Encoder(self.folder).ends
        found = []
        for number in range(sampling.per_prompt):
            torch.manual_seed(sampling.seed + number)
            ids, logps = list(prompt), list[float]()
            while len(logps) < sampling.max_new_tokens and (not logps or ids[-1] not in ends):
                with torch.no_grad():
                    scores = self._log_probabilities(ids, images)[-1]
                greedy = sampling.temperature == 0
                token = int(scores.argmax() if greedy else (scores / sampling.temperature).softmax(-1).multinomial(1))
                ids.append(token)
                logps.append(float(scores[token]))
            found.append(Sampled(ids[len(prompt) :], logps, bool(logps) and ids[-1] in ends))
        return found

    def _logps(self, lesson: Lesson) -> Tensor:
        targets = torch.tensor(lesson.ids[1:])
        return self._log_probabilities(lesson.ids[:-1], lesson.images).gather(1, targets[:, None])[:, 0]

    def _log_probabilities(self, ids: Sequence[int], images: Sequence[Picture]) -> Tensor:
        """Return the log-probability of each token after each of some ids, shape (ids, vocabulary)."""
        tokens, seen = torch.tensor([ids]), dict[str, Any]()
        if images:
            seen = dict(self._pixels([image.content for image in images]))
            merged = (seen["image_grid_thw"].prod(-1) // self.processor.merge_size**2).tolist()
            # As the services do: what the client has counted is compared with what the processor makes of it.
            if merged != [image.expected_tokens for image in images]:
                expected = [image.expected_tokens for image in images]
                raise ValueError(f"expected_tokens: got {expected}, where the images have {merged}.")
            for image in images:
                tokens[0, image.start : image.start + image.expected_tokens] = self.model.config.image_token_id
            seen["mm_token_type_ids"] = (tokens == self.model.config.image_token_id).int()
        logits = self.model(input_ids=tokens, use_cache=False, **seen).logits[0]
        return logits.log_softmax(-1)

    def _pixels(self, images: Sequence[bytes]) -> Any:
        from PIL import Image

        pictures = [Image.open(BytesIO(each)).convert("RGB") for each in images]
        return self.processor(images=pictures, return_tensors="pt")


@cache
def _processor(folder: Path) -> Any:
    from transformers import AutoImageProcessor

    return AutoImageProcessor.from_pretrained(folder)


def _adapted(folder: Path, dtype: str, rank: int, alpha: float, seed: int) -> Any:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForImageTextToText

    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_pretrained(folder, dtype=getattr(torch, dtype))
    config = LoraConfig(r=rank, lora_alpha=alpha, target_modules=r".*language_model.*_proj")
    return get_peft_model(model, config).eval()
