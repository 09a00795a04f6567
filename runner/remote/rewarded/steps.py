"""The steps of a run at a remote engine that learns from graded answers: those of any, but for what is learned from.

rollouts/            the answers of each rollout and their grades
checkpoint_grades/   the same of held-out rows, a folder for each evaluation
"""

from collections.abc import Generator, Iterator, Sequence
from functools import cache, cached_property, partial

from runner.backends import Events
from runner.backends.local.training.prompt_data import PromptData
from runner.data.splits import Split
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Event
from runner.remote import rewarded
from runner.remote.engine.ledger import Sampled
from runner.remote.engine.remote_engine import RemoteEngine
from runner.remote.money.budget import Budget
from runner.remote.money.rates import Usage
from runner.remote.reference import RunRows
from runner.remote.steps import RemoteSteps
from runner.rollouts.of_run import RunRollouts


class PromptRows(RunRows):
    """The rows of a run as prompts."""

    def tokens(self, split: Split) -> Sequence[TokenRow]:
        """Return the first prompts with made-up answers, which show what the service does with a repeated request."""
        # A probe needs tokens that are scored, and a prompt alone has none.
        return self.data.telling_rows({})

    @cached_property
    def data(self) -> PromptData:
        """The rows; their prompts are tokenised when they are asked."""
        data = PromptData(self.run, "problem", self.tokenizer, self.target.settings.max_length)
        data.room = self.run.hyperparameters.max_new_tokens
        return data


class RewardedRemoteSteps(RemoteSteps):
    """A run's work at a service where a grader scores the model's own answers."""

    rows_of = PromptRows

    def _loop(self) -> Generator[Event, None, int]:
        """Train in the session that is open."""
        self.engine.training_now = True
        work = self._rollouts.train(self.engine, self._reference_logps)
        return (yield from self.budget.watched(work, self.session))

    def _evaluate(self) -> Events:
        self.engine.training_now = False
        return (yield from self._rollouts.evaluate(self.engine, self._trained.step))

    def _reference_logps(self, rows: Sequence[TokenRow]) -> list[list[float]]:
        """Return the log-probability of each learned token of some rows under the model that training starts from."""
        return list(base_logps(self.engine, self.target.origin.sampler, rows))

    @cached_property
    def budget(self) -> Budget:
        """What the run may cost, and has cost."""
        # Once, and only where there is a limit: it reads and tokenises a thousand prompts.
        prompt, every = cache(partial(rewarded.mean_prompt, self.run, self.rows.tokenizer)), self.recipe.evaluate_every

        def usage(step: int) -> Usage:
            return rewarded.step_usage(self.run, self.target.limits, prompt(), every, step)

        return Budget(self.run, self.target, self.recipe, usage, self.session.driver.ledger)

    @cached_property
    def _rollouts(self) -> RunRollouts:
        return RunRollouts(self.run, self.rows.data.rows, self.rows.tokenizer, self.recipe)


def base_logps(engine: RemoteEngine, path: str, rows: Sequence[TokenRow]) -> Iterator[list[float]]:
    """Yield the log-probability of each learned token of a row by a checkpoint's weights, else by the base model's."""
    answering, driver = engine.driver.service.answering, engine.driver
    sampler = answering.sampler(driver.handle.session, path, engine.limits.base_model)
    for row in rows:
        found = list[float]()
        for answer, learned in zip(row.answers, row.learned, strict=True):
            if not any(learned):
                continue
            ids = [*row.prompt, *answer]
            logps = answering.logps(sampler, ids)[len(row.prompt) - 1 :]
            # Paid for as a prompt, and as the one token that follows.
            driver.ledger.add(Sampled(len(ids), 1))
            found += [logp for logp, wanted in zip(logps, learned, strict=True) if wanted]
        yield found
