"""The local backend's steps: prepare, train, save, evaluate, sample. Each finds what earlier ones left on disk.

    prepare    the model, the rows on disk, and how rows are laid out                (in the user's cache)
    train      the loop, with checkpoints                                            checkpoints/
    save       the result as a model reference                                       model/
    evaluate   the result on the held-out rows, row by row                           evaluation.jsonl
    sample     held-out prompts answered by the untouched and the tuned model        samples.json

The model is loaded when a step first needs it, and stays for the next one. Tokens and the reference's
log-probabilities are computed when a batch needs them.
"""

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import torch

from runner import distributed, methods, models
from runner.backends import Events, Result
from runner.backends.local import generate, model
from runner.backends.local.keys import Local
from runner.backends.local.loaded_model import LoadedModel
from runner.backends.local.machine import hardware
from runner.backends.local.machine.profile import Profile
from runner.backends.local.machine.throughput import flops_per_token
from runner.backends.local.parallel import schedule
from runner.backends.local.reward_model.head import merged
from runner.backends.local.scoring.scorer import Scorer
from runner.backends.local.training import checkpoint, recipe
from runner.backends.local.training.in_process import InProcessEngine, result_weights
from runner.backends.local.training.learner import Learner, trainable
from runner.backends.local.training.recipe import LocalRecipe
from runner.backends.local.training.run_examples import RunExamples
from runner.backends.local.training.training_data import TrainingData
from runner.data.rows import row_id
from runner.evaluation import on_the_way
from runner.record import layout, samples
from runner.record.events import Metrics, Note, Progress
from runner.training.evaluation import evaluate, mean
from runner.training.loop import train

if TYPE_CHECKING:
    from runner.plan import Run


class LocalSteps:
    """A run's work on this machine, and what it holds in memory between steps."""

    def __init__(self, run: "Run", results: Mapping[str, Result]) -> None:
        self.run, self.results = run, results
        self.settings, self.evaluation = Local.of(run.request), run.request.evaluation
        self.method = methods.load(run.plan.method)
        self.checkpoints: Path = run.folder / layout.CHECKPOINTS
        self.group = distributed.group()
        self.loaded = LoadedModel(run, results.get("prepare", {}))

    def prepare(self) -> Events:
        """Store the rows, find those that cannot be learned, and see whether rows can be packed."""
        fetched = self.group.broadcast(models.cached(self.run.plan.model.source) is None)
        if fetched:
            yield Note(f"fetching {self.run.plan.model.source.partition('@sha256')[0]}, once for this machine …")
        yield Progress("prepare", 0, 0, what="reading the rows")
        _ = self.data.rows
        yield Progress("prepare", 0, 0, what="loading the model")
        loaded = self.loaded
        scorer = loaded.make_scorer(loaded.model)
        yield Progress("prepare", 0, 0, what="trying how rows can be packed")
        if self.group.any_of(not loaded.packs_well(scorer, self.data.telling_rows(loaded.model.config.to_dict()))):
            yield Note("packed rows get other log-probabilities from this model; each answer is computed alone")
            scorer = scorer.unpacked()
        device, threads = str(scorer.model.device), torch.get_num_threads()
        how = schedule.choose(self.settings, scorer.packed, device, threads, self.group.rank.world_size)
        loaded.how = self.group.broadcast(how)
        loaded.scorer = loaded.with_lanes(scorer)
        if fetched:  # else the data check has had the tokenizer, and found them
            yield from self.data.check_long_rows()
        return dict(self.loaded.how)

    def train(self) -> Events:
        """Run the training loop from its last checkpoint."""
        yield Progress("train", 0, self.recipe.num_steps)
        rows, held_out = self.rows.of("train"), self.rows.of("validation")
        answers = on_the_way.of_run(self.run, self.data.rows_to_ask, self.loaded.tokenizer)
        step = yield from train(self.engine, self.recipe, rows, held_out, answers, self.rows.mismatched)
        if answers is not None:
            yield from answers.chance(step)
        if self.profile.folder is not None:
            lengths = self.data.tokens["train"].lengths(0)  # the mean of the first block stands for all rows
            tokens = sum(lengths) / len(lengths) * self.run.hyperparameters.batch_size * self.profile.steps
            here = hardware.known(self.settings.runtime.device)
            self.profile.write(tokens * flops_per_token(self.engine.learner.model), here, self.settings.dtype)
        return trained(self.engine, step)

    def save(self) -> Events:
        """Write the trained weights as a model reference."""
        self._load_result()
        digest = self._save() if self.group.rank.first else ""
        yield Progress("save", 1, 1)
        return {"model": str(self.run.folder / layout.MODEL), "digest": self.group.broadcast(digest)}

    def evaluate(self) -> Events:
        """Judge the result on every held-out row."""
        held_out = self.rows.of("validation")
        if not len(held_out):
            yield Note(
                "no held-out rows, so nothing to evaluate; set dataset.validation or dataset.validation_fraction"
            )
            return {}
        self._load_result()
        mismatched = self.rows.mismatched.held_out
        rows = yield from evaluate(self.engine, held_out, self.recipe.loss, mismatched=mismatched)
        if self.group.rank.first:
            lines = [
                msgspec.json.encode({"row": row_id(row).hex(), **values})
                for row, values in zip(self.data.rows["validation"], rows, strict=True)
            ]
            (self.run.folder / layout.HELD_OUT).write_bytes(b"\n".join(lines) + b"\n")
        values = mean(rows, self.recipe.sources)
        yield Metrics(msgspec.convert(self.results["train"]["step"], int), values)
        return dict(values)

    def sample(self) -> Events:
        """Answer held-out prompts with the untouched and with the tuned model."""
        rows = self.data.rows_to_ask
        if not rows:
            return {}
        prompts, wanted = [row.given for row in rows], samples.sampling(self.run.request)
        self._load_result()
        with self.loaded.scorer.released():
            after = generate.model_replies(self.loaded, self.loaded.model, prompts, wanted)
            yield Progress("sample", 1, 2, what="the base model's answers")
            before = generate.base_replies(self.loaded, prompts, wanted)
        return (yield from samples.keep(self.run.folder if self.group.rank.first else None, rows, before, after))

    @cached_property
    def rows(self) -> RunExamples:
        """The rows as the training loop asks for them."""
        return RunExamples(self.loaded, self.data, self.recipe, self.profile)

    @cached_property
    def data(self) -> TrainingData:
        """The rows, and their tokens."""
        return TrainingData(self.run, self.method.kind, self.loaded.tokenizer, self.settings.max_length)

    @cached_property
    def engine(self) -> InProcessEngine:
        """The model with its optimizer and its checkpoints, as the training loop drives it."""
        return InProcessEngine(Learner(self.loaded.scorer, self.recipe, self.profile), self.checkpoints)

    @cached_property
    def profile(self) -> Profile:
        """Where the time goes, if that is asked for; of several processes the first reports its own."""
        return Profile(self.run.folder if self.settings.profile and self.group.rank.first else None)

    @cached_property
    def recipe(self) -> LocalRecipe:
        """What the training loop is to do."""
        return recipe.make(self.run, self.method, self.loaded.how)

    def _load_result(self) -> None:
        self.group.any_of(False)  # a barrier: rank 0 has written what the others are about to read
        result = result_weights(self.checkpoints, self.evaluation.keep == "best")
        self.engine.learner.load_result(result)

    def _save(self) -> str:
        """Write the model reference and return its digest; a sharded model is put together on the CPU."""
        trained = self.loaded.model
        if self.loaded.sharded:
            trained = self.loaded.load(torch.device("cpu"))
            result = result_weights(self.checkpoints, self.evaluation.keep == "best")
            checkpoint.load_weights(result, trainable(Scorer(trained, packed=False).model))
        if self.loaded.reward_model:
            trained = merged(trained, str(self.settings.dtype))
        return model.save(trained, self.run.folder / layout.MODEL, self.run.plan.id, self.run.plan.model).digest


def trained(engine: InProcessEngine, step: int) -> Result:
    """Return the result of the step `train`, which ended in the weights after so many optimizer steps."""
    num_weights = sum(weight.numel() for weight in engine.learner.weights.values())
    return {"step": step, "num_steps": engine.learner.recipe.num_steps, "num_weights": num_weights}
