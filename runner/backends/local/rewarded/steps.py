"""The steps of a run that learns from graded answers: those of any local run, but for what is learned from.

rollouts/            the answers of each rollout and their grades
checkpoint_grades/   the same of held-out rows, a folder for each evaluation
"""

from collections.abc import Sequence
from functools import cached_property

import msgspec
import torch

from runner.backends import Events
from runner.backends.local.steps import LocalSteps, trained
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.prompt_data import PromptData
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Note, Progress
from runner.rollouts.of_run import RunRollouts


class RewardedSteps(LocalSteps):
    """A run's work on this machine where a grader scores the model's own answers."""

    def prepare(self) -> Events:
        """Prepare as any run, after all prompts were found to leave room for an answer."""
        # Before the model is loaded: a row that is too long is seen within seconds.
        yield from self.data.check_long_rows()
        return (yield from super().prepare())

    def train(self) -> Events:
        """Run the training loop from its last checkpoint."""
        yield Progress("train", 0, self.recipe.num_steps)
        step = yield from self.rollouts.train(self.engine, self._reference_logps)
        return trained(self.engine, step)

    def evaluate(self) -> Events:
        """Judge the result on every held-out row by the grader that it was trained by."""
        if not len(self.data.rows.get("validation", ())):
            yield Note(
                "no held-out rows, so nothing to evaluate; set dataset.validation or dataset.validation_fraction"
            )
            return {}
        self._load_result()
        return (yield from self.rollouts.evaluate(self.engine, msgspec.convert(self.results["train"]["step"], int)))

    @cached_property
    def rollouts(self) -> RunRollouts:
        """What is learned from, and what the model is judged by."""
        return RunRollouts(self.run, self.data.rows, self.loaded.tokenizer, self.recipe)

    @cached_property
    def data(self) -> PromptData:
        """The rows; their prompts are tokenised when they are asked."""
        data = PromptData(self.run, self.method.kind, self.loaded.tokenizer, self.settings.max_length)
        data.room = self.run.hyperparameters.max_new_tokens
        return data

    @cached_property
    def engine(self) -> InProcessEngine:
        """The model with its optimizer; log-probabilities are those at the temperature of sampling."""
        # The policy that is learned is the one that was sampled from, which its temperature is part of.
        self.loaded.scorer.temperature = self.run.hyperparameters.temperature
        learner = Learner(self.loaded.scorer, self.recipe, self.profile)
        if self.settings.generator != "vllm":
            return InProcessEngine(learner, self.checkpoints)
        from runner.backends.local.generators.vllm import VllmGenerator

        loaded = self.loaded
        generator = VllmGenerator(loaded.model, loaded.folder, self.settings, self.run.plan.seed)
        return InProcessEngine(learner, self.checkpoints, generator)

    @torch.no_grad()
    def _reference_logps(self, rows: Sequence[TokenRow]) -> list[list[float]]:
        """Return the log-probability of each learned token of some rows under the model as it was."""
        found = []
        with self.rows.reference() as scorer:
            scorer.model.eval()
            scorer.temperature = self.run.hyperparameters.temperature
            # Row by row: a group fills a product, and its prompt is computed once.
            for row in rows:
                tokens = scorer([row], by_token=True).tokens
                assert tokens is not None
                found.append(tokens.logps.tolist())
        return found
