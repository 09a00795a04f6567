"""The local backend's steps: prepare, train, save, evaluate, sample. Each finds what earlier ones left on disk.

    prepare    the model, the rows on disk, and how rows are laid out                (in the user's cache)
    train      the loop, with checkpoints                                            checkpoints/
    save       the result as a model reference                                       model/
    evaluate   the result on the held-out rows, row by row                           evaluation.jsonl
    sample     held-out prompts answered by the untouched and the tuned model        samples.json

The model is loaded when a step first needs it, and stays for the next one. Tokens and the reference's
log-probabilities are computed when a batch needs them.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import torch
import transformers

from runner import cache, distributed, methods, models
from runner.backends import Events
from runner.backends.local import disk_cache, model, process_cache
from runner.backends.local.generate import answers
from runner.backends.local.keys import Local
from runner.backends.local.machine import allocator, hardware
from runner.backends.local.machine.profile import Profile
from runner.backends.local.machine.throughput import flops_per_token
from runner.backends.local.parallel import sharding
from runner.backends.local.parallel.lanes import Lanes
from runner.backends.local.scoring.reference_cache import ReferenceLogps
from runner.backends.local.scoring.scorer import Scorer, exact
from runner.backends.local.training import checkpoint, recipe
from runner.backends.local.training.examples import StoredExamples
from runner.backends.local.training.learner import Learner, trainable
from runner.backends.local.training.loop import mean, result_weights, train
from runner.backends.local.training.recipe import Recipe
from runner.backends.local.training.training_data import TrainingData
from runner.data.rows import Message, prompt_of, row_id
from runner.data.splits import Split
from runner.models import tokenizer_folder
from runner.models.chat_tokenizer import ChatTokenizer, TokenRow
from runner.record.events import Metrics, Note, Progress
from runner.record.samples import compared

if TYPE_CHECKING:
    from runner.plan import Run

TELLING_TOKENS = 384
"""The most tokens of a row with which packing is tried, where a model treats longer ones no differently."""
Answers = list[tuple[str, bool]]
"""Each answer, and whether it ended by itself."""


class LocalSteps:
    """A run's work on this machine, and what it holds in memory between steps."""

    def __init__(self, run: "Run", results: Mapping[str, dict[str, Any]]) -> None:
        self.run, self.results = run, results
        self.settings, self.evaluation = Local.of(run.request), run.request.evaluation
        self.method = methods.load(run.plan.method)
        self.checkpoints: Path = run.folder / "checkpoints"
        self.group = distributed.group()
        self._kept_examples: dict[str, StoredExamples] = {}

    def prepare(self) -> Events:
        """Store the rows, find those that cannot be learned, and see whether rows can be packed."""
        fetched = self.group.broadcast(models.cached(self.run.plan.model.source) is None)
        if fetched:
            yield Note(f"fetching {self.run.plan.model.source.partition('@sha256')[0]}, once for this machine …")
        yield Progress("prepare", 0, 0, what="reading the rows")
        _ = self.data.rows
        yield Progress("prepare", 0, 0, what="loading the model")
        scorer = self._scorer(self.model)
        yield Progress("prepare", 0, 0, what="trying how rows can be packed")
        if self.group.any_of(not self._packs_well(scorer)):
            yield Note("packed rows get other log-probabilities from this model; each answer is computed alone")
            scorer = scorer.unpacked()
        self.scorer = scorer
        self.how = self.group.broadcast(recipe.how(self.settings, scorer, self.group.rank.world_size))
        self._ready(scorer)
        if fetched:  # else the data check has had the tokenizer, and found them
            yield from self.data.check_long_rows()
        return dict(self.how)

    def train(self) -> Events:
        """Run the training loop from where it stands."""
        yield Progress("train", 0, self.recipe.num_steps)
        rows, held_out = self.examples("train"), self.examples("validation")
        step = yield from train(self.learner, rows, held_out, self.checkpoints)
        if self.profile.folder is not None:
            self._write_profile()
        return {"step": step, "num_steps": self.recipe.num_steps, "num_weights": self.num_weights}

    def save(self) -> Events:
        """Write the trained weights as a model reference."""
        self._load_result()
        digest = self._save() if self.group.rank.first else ""
        yield Progress("save", 1, 1)
        return {"model": str(self.run.folder / "model"), "digest": self.group.broadcast(digest)}

    def evaluate(self) -> Events:
        """Judge the result on every held-out row."""
        held_out = self.examples("validation")
        if not len(held_out):
            yield Note(
                "no held-out rows, so nothing to evaluate; set dataset.validation or dataset.validation_fraction"
            )
            return {}
        self._load_result()
        rows = yield from self.learner.evaluate(held_out)
        if self.group.rank.first:
            lines = [
                msgspec.json.encode({"row": row_id(row).hex(), **values})
                for row, values in zip(self.data.rows["validation"], rows, strict=True)
            ]
            (self.run.folder / "evaluation.jsonl").write_bytes(b"\n".join(lines) + b"\n")
        values = mean(rows)
        yield Metrics(self.results["train"]["step"], values)
        return values

    def sample(self) -> Events:
        """Answer held-out prompts with the untouched and with the tuned model."""
        rows = self.data.rows.get("validation", self.data.rows["train"])
        prompts = [prompt_of(row) for row in rows[: self.evaluation.samples]]
        if not prompts:
            return {}
        self._load_result()
        with self.scorer.released():
            after = self._answers(self.model, prompts)
            yield Progress("sample", 1, 2)
            before = self._answers_before(prompts)
        yield Progress("sample", 2, 2)
        folder = self.run.folder if self.group.rank.first else None
        style, step = self.run.request.dataset.style, self.results["train"]["step"]
        return (yield from compared(folder, prompts, (before, after), style, step))

    def examples(self, split: Split) -> StoredExamples:
        """Return a split's rows as the training loop asks for them; none where there is no such split."""
        if split not in self._kept_examples:
            rows, reference = self.data.tokens.get(split, ()), None
            if rows and self.method.needs_reference(self.run.hyperparameters):
                path, room = cache.user_folder() / "reference.db", self.how["tokens_at_once"] // self._lanes.count
                reference = ReferenceLogps(path, rows, room, self._base_identity, self._reference)
            self._kept_examples[split] = StoredExamples(rows, reference)
        return self._kept_examples[split]

    @contextmanager
    def _reference(self) -> Iterator[Scorer]:
        """Lend the model as it was before training: the adapter off, or a second copy where every weight learns."""
        with self.profile.part("reference"), model.untouched(self.model):
            yield self._first_copy if self.settings.tuning == "full" else self.scorer
        if all(examples.reference is None or examples.reference.complete for examples in self._kept_examples.values()):
            self.__dict__.pop("_first_copy", None)  # nobody needs it any more

    @cached_property
    def _first_copy(self) -> Scorer:
        """The weights that training started from, in addition to those that learn; as many bytes again as they take."""
        return self._ready(self._scorer(self._load(self._load_device), self.how["packed"]))

    @property
    def _base_identity(self) -> list[Any]:
        """All that decides what the untouched model thinks of given tokens, down to the last bit."""
        return [*self._weights_identity, *(self.how[key] for key in ("packed", "threads", "lanes", "device"))]

    @property
    def _weights_identity(self) -> list[Any]:
        """The untouched model, and the code that computes with it."""
        weights = [self.run.plan.model.digest, self.settings.dtype, self.settings.quantization]
        return [*weights, str(torch.__version__), transformers.__version__]

    @cached_property
    def how(self) -> dict[str, Any]:
        """How the work is done, as the first process chose it."""
        return self.results["prepare"]

    @cached_property
    def scorer(self) -> Scorer:
        """The model as it scores rows."""
        return self._ready(self._scorer(self.model, self.how["packed"]))

    def _ready(self, scorer: Scorer) -> Scorer:
        scorer.lanes = self._lanes
        return scorer

    @cached_property
    def _lanes(self) -> Lanes:
        return Lanes(self.how.get("lanes", 1), torch.get_num_threads())

    def _scorer(self, loaded: Any, packed: bool = True) -> Scorer:
        """Return a model as it scores rows. Layers are tried out on it whole; only then is it shared out."""
        scorer = Scorer(loaded, packed, self.settings.neftune_alpha)
        if self.sharded:
            sharding.shard(scorer.model, self.device, self.group.rank.world_size)
            with torch.no_grad():
                scorer(self._telling_rows()[1:])  # FSDP2 notes at the first call which weights learn
        return scorer

    @property
    def sharded(self) -> bool:
        """Whether weights are shared out; a single process has nobody to share with."""
        return self.settings.runtime.shard and self.group.rank.world_size > 1

    @cached_property
    def device(self) -> torch.device:
        """Where this process computes."""
        return model.device(self.settings.runtime.device)

    @cached_property
    def folder(self) -> Path:
        """The folder of the model that training starts from; fetched if need be."""
        return models.fetch(self.run.plan.model.source)

    @cached_property
    def data(self) -> TrainingData:
        """The rows, and their tokens."""
        return TrainingData(self.run, self.method.kind, self.tokenizer)

    @cached_property
    def tokenizer(self) -> ChatTokenizer:
        """The tokenizer of that model."""
        return ChatTokenizer(tokenizer_folder(self.folder))

    @cached_property
    def model(self) -> Any:
        """The model, ready to learn, on its device."""
        allocator.keep_freed()
        runtime = self.settings.runtime
        # A resumed run keeps the number it began with, so that it ends in the same bits; among as many processes.
        how, count = self.results.get("prepare", {}), self.group.rank.world_size
        threads = how["threads"] if how and how.get("processes", 1) == count else runtime.threads
        if threads != "auto":
            torch.set_num_threads(threads)
        return self._load(self._load_device)

    @property
    def _load_device(self) -> torch.device:
        return torch.device("cpu") if self.sharded else self.device

    def _load(self, device: torch.device) -> Any:
        """Return the model that training starts from, ready to learn."""

        def load() -> Any:
            return model.start(self.folder, self.settings, device)

        if self.settings.tuning == "full" or self.settings.quantization != "none" or self.sharded:
            loaded = load()
        else:  # frozen weights stay for the next trial
            key = (*self._weights_identity, str(self.folder), device, self.settings.trust_remote_code)
            loaded = process_cache.borrowed(process_cache.latest("base", key, load))
        return model.prepare(loaded, self.settings, self.run.plan.seed)

    @cached_property
    def learner(self) -> Learner:
        """The model with its optimizer."""
        return Learner(self.scorer, self.recipe, self.profile)

    @cached_property
    def profile(self) -> Profile:
        """Where the time goes, if that is asked for; of several processes the first tells its own."""
        return Profile(self.run.folder if self.settings.profile and self.group.rank.first else None)

    @cached_property
    def recipe(self) -> Recipe:
        """What the training loop is to do."""
        return recipe.make(self.run, self.method, self.run.plan.train.rows, self.how)

    def _packs_well(self, scorer: Scorer) -> bool:
        """Say whether packed rows have the model's own values, tried where the user's cache does not know it."""
        rows = self._telling_rows()
        path = disk_cache.place("layouts", *self._weights_identity, self.device, self.settings.lora, rows)
        known: bool | None = self.group.broadcast(disk_cache.read(path, bool))
        if known is None:
            known = exact(scorer, rows)
            disk_cache.keep(path, known)
        return known

    def _telling_rows(self) -> list[TokenRow]:
        """Return a long and the shortest row of the first block, with which packing is tried.

        Models whose tokens see only so far show it in the longest rows; others in any, and the longest take 10 s.
        """
        rows = self.data.tokens["train"]
        lengths = rows.lengths(0)
        config = self.model.config.to_dict()
        near = any(config.get(key) for key in ("sliding_window", "attention_chunk_size"))
        enough = [length for length in lengths if near or length <= TELLING_TOKENS] or [min(lengths)]
        return [rows[lengths.index(max(enough))], rows[lengths.index(min(lengths))]]

    @property
    def num_weights(self) -> int:
        """How many numbers are trained."""
        return sum(weight.numel() for weight in self.learner.weights.values())

    def _write_profile(self) -> None:
        """Write the profile; its steps are counted with the mean tokens of the first block's rows."""
        lengths = self.data.tokens["train"].lengths(0)
        tokens = sum(lengths) / len(lengths)
        per_step = tokens * self.run.hyperparameters.batch_size * flops_per_token(self.learner.model)
        here = hardware.known(self.settings.runtime.device)
        self.profile.write(self.profile.steps * per_step, here, self.settings.dtype)

    def _load_result(self) -> None:
        self.group.any_of(False)  # here all meet: process 0 has written what the others are about to read
        checkpoint.load_weights(self._result, self.learner.weights)

    @property
    def _result(self) -> Path:
        return result_weights(self.checkpoints, self.evaluation.keep == "best")

    def _save(self) -> str:
        """Write the model reference and return its digest; a model that is shared out is put together on the CPU."""
        trained = self.model
        if self.sharded:
            trained = self._load(torch.device("cpu"))
            checkpoint.load_weights(self._result, trainable(Scorer(trained, packed=False).model))
        return model.save(trained, self.run.folder / "model", self.run.plan.id, self.run.plan.model).digest

    def _answers(self, asked: Any, prompts: Sequence[Sequence[Message]]) -> Answers:
        """Return process 0's answers; the others compute them, too, where it needs their part of the weights."""
        if not self.group.rank.first and not self.sharded:
            return [("", True)] * len(prompts)
        return answers(asked, self.tokenizer, prompts, self.evaluation.max_new_tokens)

    def _answers_before(self, prompts: Sequence[Sequence[Message]]) -> Answers:
        """Return the untouched model's answers, worked out where the user's cache does not know them."""
        path = disk_cache.place("answers", self._base_identity, prompts, self.evaluation.max_new_tokens)
        known: Answers | None = self.group.broadcast(disk_cache.read(path, Answers))
        if known is None:
            with self._start() as start:
                known = self._answers(start, prompts)
            if self.group.rank.first:
                disk_cache.keep(path, known)
        return known

    @contextmanager
    def _start(self) -> Iterator[Any]:
        """Lend the model as it was before training: the adapter off, or loaded anew."""
        if self.settings.tuning == "full":
            start = model.start(self.folder, self.settings, torch.device("cpu") if self.sharded else self.device)
            if self.sharded:
                sharding.shard(start, self.device, self.group.rank.world_size)
            yield start.to(self.device)
        else:
            with model.untouched(self.model):
                yield self.model
