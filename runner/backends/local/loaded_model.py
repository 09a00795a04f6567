"""The model on this machine: loaded, ready to learn, and as it scores rows; built once and used by every step."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch
import transformers

from runner import distributed, methods, models
from runner.backends.local import disk_cache, model, process_cache
from runner.backends.local.keys import Local
from runner.backends.local.machine import allocator
from runner.backends.local.parallel import sharding
from runner.backends.local.parallel.lanes import Lanes
from runner.backends.local.parallel.schedule import How
from runner.backends.local.reward_model.head import with_head
from runner.backends.local.reward_model.scorer import RewardScorer
from runner.backends.local.scoring.scorer import ROUNDING, Scorer, exact
from runner.models.chat.tokenizer import ChatTokenizer, TokenRow

if TYPE_CHECKING:
    from peft import PeftModel
    from transformers import PreTrainedModel

    from runner.plan import Run


class LoadedModel:
    """The model that training starts from, and changes. Nothing is loaded before it is asked for.

    `how` says how the work is done here (packing, lanes, threads, device). The step `prepare` chooses it; a resumed run
    keeps it, so that it ends in the same bits.
    """

    def __init__(self, run: "Run", how: Mapping[str, object]) -> None:
        self.source, self._digest, self._seed = run.plan.model.source, run.plan.model.digest, run.plan.seed
        # convert: what the journal holds is checked, not taken at its word.
        self.settings, self.how = Local.of(run.request), msgspec.convert(how, How)
        self.reward_model = methods.load(run.plan.method).reward_model
        self.group = distributed.group()
        self.sharded = self.settings.runtime.shard and self.group.rank.world_size > 1

    @cached_property
    def device(self) -> torch.device:
        """Where this process computes."""
        return model.device(self.settings.runtime.device)

    @cached_property
    def folder(self) -> Path:
        """The folder of the base model, which is downloaded if need be."""
        return models.fetch(self.source)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer of the base model."""
        return ChatTokenizer(models.tokenizer_folder(self.folder))

    @cached_property
    def model(self) -> "PreTrainedModel | PeftModel":
        """The model, ready to learn."""
        allocator.configure()
        # A resumed run keeps the number of threads it began with, as long as there are as many processes.
        same = self.how.get("processes", 1) == self.group.rank.world_size
        threads = self.how["threads"] if self.how and same else self.settings.runtime.threads
        if threads != "auto":
            torch.set_num_threads(threads)
        return self.load(self._load_device)

    @cached_property
    def scorer(self) -> Scorer:
        """The model as it scores rows, packed if that is exact."""
        return self.with_lanes(self.make_scorer(self.model, self.how["packed"]))

    def load(self, device: torch.device) -> "PreTrainedModel | PeftModel":
        """Load the base model and make it ready to learn."""

        def load() -> "PreTrainedModel":
            return model.start(self.folder, self.settings, device)

        if self.settings.tuning == "full" or self.settings.quantization != "none" or self.sharded:
            loaded = load()
        else:  # frozen weights stay in memory for the next trial of a sweep
            # All that decides the loaded object, so that a trial of another model or type does not get it.
            key = (*self.weights_identity, str(self.folder), device, self.settings.trust_remote_code)
            loaded = process_cache.borrowed(process_cache.latest("base", key, load))
        if self.reward_model:
            loaded = with_head(loaded, self._seed)
        return model.prepare(loaded, self.settings, self._seed)

    def make_scorer(self, loaded: "PreTrainedModel | PeftModel", packed: bool = True) -> Scorer:
        """Return a model as it scores rows. Layers are tried out on it whole; only then is it sharded."""
        scorer = (RewardScorer if self.reward_model else Scorer)(loaded, packed, self.settings.neftune_alpha)
        if self.sharded:
            sharding.shard(scorer.model, self.device, self.group.rank.world_size)
            with torch.no_grad():
                scorer([TokenRow([0], ([0],), ([True],))])  # FSDP2 notes at the first call which weights learn
        return scorer

    def with_lanes(self, scorer: Scorer) -> Scorer:
        """Return a scorer that computes packs in as many lanes as `how` says."""
        # After the scorer is made: trying layers out needs the model, and how many lanes there are is chosen
        # later.
        scorer.lanes = self.lanes
        return scorer

    @cached_property
    def lanes(self) -> Lanes:
        """The worker threads that compute packs side by side."""
        return Lanes(self.how.get("lanes", 1), torch.get_num_threads())

    def packs_well(self, scorer: Scorer, rows: Sequence[TokenRow]) -> bool:
        """Say whether packed rows have the model's own values; tried once per model and rows, then cached on disk."""
        head = ["head"] if self.reward_model else []
        path = disk_cache.place(
            "layouts", ROUNDING, *self.weights_identity, self.device, self.settings.lora, rows, *head
        )
        # Rank 0's cache decides for all: ranks that packed differently would not meet in FSDP's calls.
        known: bool | None = self.group.broadcast(disk_cache.read(path, bool))
        if known is None:
            known = exact(scorer, rows)
            disk_cache.keep(path, known)
        return known

    @contextmanager
    def base_model(self) -> Iterator["PreTrainedModel | PeftModel"]:
        """Lend the base model: the adapter off, or loaded again if every weight learns."""
        if self.settings.tuning != "full":
            with model.untouched(self.model):
                yield self.model
            return
        # Every weight has learned, so that the base model is loaded a second time, for this block only.
        base = model.start(self.folder, self.settings, self._load_device)
        if self.sharded:
            sharding.shard(base, self.device, self.group.rank.world_size)
        yield base.to(self.device)

    @property
    def base_identity(self) -> list[object]:
        """Everything that decides the log-probabilities of given tokens under the base model, down to the last bit."""
        return [*self.weights_identity, *(self.how[key] for key in ("packed", "threads", "lanes", "device"))]

    @property
    def weights_identity(self) -> list[object]:
        """The base model, and the code that computes with it."""
        # Versions too: a new torch or transformers may round differently in the last bit.
        weights = [self._digest, self.settings.dtype, self.settings.quantization]
        return [*weights, str(torch.__version__), transformers.__version__]

    @property
    def _load_device(self) -> torch.device:
        # Sharded, a whole model may fit no device: it is loaded on the CPU, and each rank moves its part.
        return torch.device("cpu") if self.sharded else self.device
