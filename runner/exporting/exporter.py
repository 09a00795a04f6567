"""What an exporter is, and what it is given: the model that a run has made."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from runner import models
from runner.errors import ModelError
from runner.models import hosted_model, model_reference
from runner.models.chat.tokenizer import ChatTokenizer
from runner.models.model_reference import ModelReference
from runner.record import layout

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Bound:
    """How far an export may be from the run's model: what its precision costs, and no mistake."""

    # The mean and not the largest: with rounded weights single unlikely tokens are far off, and tell nothing.
    logps: float
    """The mean distance of a token's log-probability, in nats."""
    # Texts part at the first near tie, so that a share, and not each of them, has to be the same.
    replies: float
    """The share of greedy answers that are the same text."""


class RunModel:
    """The model that a run has made, in its folder on this machine.

    Raises `ModelError` where the run has none yet, or has it at a service.
    """

    def __init__(self, run: Path) -> None:
        self.name, self.folder = run.name, run / layout.MODEL
        if hosted_model.read(run):
            raise ModelError(f"{run.name}: its model is at a service, which gives no weights away to export.")
        self.reference: ModelReference = model_reference.demand(self.folder, run.name)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """Its tokenizer: its own, or that of the base model."""
        return ChatTokenizer(models.tokenizer_folder(self.folder))

    @cached_property
    def ends(self) -> list[int]:
        """The ids that end its answers, as the configuration of the weights has them."""
        from runner.backends.local.generation import ends

        # As `runner.chat` stops: a tokenizer's own end token may be another one, which the run never obeyed.
        return ends(self.weights())

    def weights(self) -> "PreTrainedModel":
        """Return the model in float32, its adapters merged; as `runner.chat` and `runner.evaluate` load it.

        Loaded once, and forgotten with `release`: an exporter may change its type.
        """
        return self._weights

    # float32 whatever the run computed in: the sum of base and adapter is rounded once, by the form that is asked for.
    @cached_property
    def _weights(self) -> "PreTrainedModel":
        from runner.backends.local import model

        return model.load(self.folder).eval()

    def base(self) -> "PreTrainedModel":
        """Return the model that it was tuned from, in float32."""
        from runner.backends.local import model

        return model.load(models.fetch(self.reference.base.source)).eval()

    def release(self) -> None:
        """Free the weights; the program that loads the export needs the room."""
        self.__dict__.pop("_weights", None)


class Exporter(ABC):
    """A form of a model that another program loads. A new one is a module in `formats/` that ends with `EXPORTER = …`.

    It has to give what `prove` asks of it, else the export is refused.
    """

    name: ClassVar[str]
    """What `format=` is set to."""
    program: ClassVar[str]
    """The program that it is made for, a module of `programs/`."""
    library: ClassVar[str] = "transformers"
    """What the hub calls what loads it, for the model card."""
    bounds: ClassVar[Mapping[str, Bound]]
    """What `quantization=` may be set to, the usual one first, with how far each may be off."""
    quantized: ClassVar[frozenset[str]] = frozenset()
    """Those of them that cost something: how much, the run's own graders say."""

    @abstractmethod
    def write(self, model: RunModel, folder: Path, quantization: str) -> None:
        """Write the model into an empty folder. Raises `ModelError` for one that has no such form."""

    @abstractmethod
    def usage(self, name: str, base: str) -> str:
        """Return the lines that load it, for the model card.

        `name` is its folder, or what it is called at a hub; `base` the source of the model that it was tuned from.
        """
