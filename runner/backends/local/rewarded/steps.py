"""The steps of a run that learns from graded answers: those of any local run, but for what is learned from.

rollouts/            the answers of each rollout and their grades
checkpoint_grades/   the same of held-out rows, a folder for each evaluation
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property

import msgspec
import torch

from runner.backends import Events, Result
from runner.backends.local import rewarded
from runner.backends.local.steps import LocalSteps, trained
from runner.backends.local.training import recipe
from runner.backends.local.training.in_process import InProcessEngine
from runner.backends.local.training.learner import Learner
from runner.backends.local.training.recipe import LocalRecipe
from runner.backends.local.training.training_data import TrainingData
from runner.errors import DataError
from runner.evaluation import configured, judges, summary
from runner.evaluation.reward import grader_of
from runner.graders import Judge
from runner.judging.client import EndpointJudge
from runner.models.chat.tokenizer import TokenRow
from runner.record import graded, layout
from runner.record.events import Note, Progress
from runner.rollouts.held_out import REWARD, HeldOutProblems, watching
from runner.rollouts.rollouts import Rollouts
from runner.rollouts.sampled import POLICY, asked, problem_of
from runner.training.loop import learn

TRIED_ANSWERS = (7, 4)
"""Tokens of the made-up answers with which packing is tried."""


class PromptData(TrainingData):
    """The rows of a run whose answers are sampled: prompts alone, tokenised when they are asked."""

    room = 0
    """Tokens that an answer takes, which have to fit behind each prompt."""

    def check_long_rows(self) -> Events:
        """Raise `DataError` for a prompt that leaves no room for an answer, so that none stops the run later."""
        for split, rows in self.rows.items():
            yield Progress("prepare", 0, 0, what="tokenising")
            for number, row in enumerate(rows, 1):
                count = len(self._tokenizer.encode_prompt(problem_of(row).given))
                if count + self.room > self._max_length:
                    raise DataError(
                        f"dataset.{split}, row {number}: the prompt has {count:,} tokens, and rft.max_new_tokens="
                        f"{self.room:,} more are over backend.max_length={self._max_length:,}; shorten it, or "
                        "raise the limit."
                    )
        return {}

    def telling_rows(self, config: Mapping[str, object]) -> list[TokenRow]:
        """Return the first prompts with made-up answers, with which packing is tried."""
        found = []
        for number in range(min(2, len(self.rows["train"]))):
            prompt = self._tokenizer.encode_prompt(problem_of(self.rows["train"][number]).given)
            # Any tokens do: whether a layout is exact does not depend on what they say.
            answers = tuple((prompt * len(TRIED_ANSWERS))[-size:] for size in TRIED_ANSWERS)
            found.append(TokenRow(prompt, answers, tuple([True] * len(each) for each in answers)))
        return found


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
        with self._judge() as judge:
            keys, request = self.run.hyperparameters, self.run.request
            rollouts = Rollouts(
                self.run.folder, self.data.rows["train"], self.loaded.tokenizer, self.recipe, keys,
                grader_of(request), judge, self._reference_logps, request.evaluation.judge.concurrency,
                lambda: judges.in_words(judge.usage, request.evaluation.judge) if judge else "",
            )  # fmt: skip
            step = yield from learn(self.engine, self.recipe, rollouts, self._held_out(judge))
        return trained(self.engine, step)

    def evaluate(self) -> Events:
        """Judge the result on every held-out row by the grader that it was trained by."""
        # As in any local run: what is held out is judged once more by the weights that are kept.
        if not len(self.data.rows.get("validation", ())):
            yield Note(
                "no held-out rows, so nothing to evaluate; set dataset.validation or dataset.validation_fraction"
            )
            return {}
        self._load_result()
        step = msgspec.convert(self.results["train"]["step"], int)
        with self._judge() as judge:
            grades = yield from self._held_out(judge).graded(self.engine, step)
        scores = graded.row_scores(grades, POLICY)
        lines = [
            msgspec.json.encode({"row": row, REWARD: each[REWARD]}) for row, each in scores.items() if REWARD in each
        ]
        (self.run.folder / layout.HELD_OUT).write_bytes(b"".join(line + b"\n" for line in lines))
        means: Result = {f"eval/{REWARD}": summary.means(grades, POLICY)[REWARD]}
        return means

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
        return InProcessEngine(Learner(self.loaded.scorer, self.recipe, self.profile), self.checkpoints)

    @cached_property
    def recipe(self) -> LocalRecipe:
        """What the training loop is to do, each rollout being learned from in so many steps."""
        num_steps = rewarded.steps_of(self.run)
        made = recipe.make(self.run, self.method, num_steps, self.loaded.how)
        # The method's own key for it comes first.
        return replace(made, evaluate_every=rewarded.interval(self.run, num_steps))

    def _held_out(self, judge: Judge | None) -> HeldOutProblems:
        request, grader = self.run.request, grader_of(self.run.request)
        return HeldOutProblems(
            self.run.folder, [asked(problem_of(row)) for row in self.data.rows.get("validation", ())],
            self.loaded.tokenizer, self.run.hyperparameters, self.run.plan.seed, grader,
            watching(configured.of_request(request), grader), judge, request.evaluation.judge.concurrency,
        )  # fmt: skip

    @contextmanager
    def _judge(self) -> Iterator[EndpointJudge | None]:
        with judges.judge_of(self.run.request.evaluation.judge, [grader_of(self.run.request)]) as judge:
            yield judge

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
