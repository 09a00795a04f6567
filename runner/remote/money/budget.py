"""What a run at a remote engine may cost and has cost: it stops at a checkpoint before `max_price` would be passed."""

from collections.abc import Generator, Mapping, Sequence
from typing import TYPE_CHECKING

from runner.data.splits import Split
from runner.errors import RunnerError, StopAsked
from runner.models.chat.tokenizer import TokenRow
from runner.record.events import Event, Metrics
from runner.remote.engine.ledger import Ledger, start_of
from runner.remote.engine.session import Session
from runner.remote.money.price import bounds, row_tokens
from runner.remote.money.rates import Usage
from runner.remote.target import Target
from runner.training.recipe import Recipe
from runner.training.schedule import batch

if TYPE_CHECKING:
    from runner.plan import Run


class PriceReached(RunnerError):
    """The next optimizer step would cost more than `max_price` leaves; the same command with a higher one continues."""


class Budget:
    """The tokens of a run by its ledger, and what is left of `max_price`."""

    def __init__(
        self, run: "Run", target: Target, recipe: Recipe, tokens: Mapping[Split, Sequence[TokenRow]], ledger: Ledger
    ) -> None:
        self._most, self._rates, self._recipe = run.request.max_price, target.rates, recipe
        self._tokens, self._ledger = tokens, ledger
        self._held_out: int | None = None

    @property
    def used(self) -> Usage:
        """The tokens that were sent so far, sessions that were lost included."""
        return Usage.of(self._ledger.used)

    def in_words(self, usage: Usage) -> str:
        """Return what tokens cost, as the end of a sentence; nothing where the price is not known."""
        if self._rates is None:
            return ""
        return f": {bounds(usage, self._rates)}"

    def demand_room(self) -> None:
        """Raise `PriceReached` where the step after the last checkpoint would pass `max_price`."""
        step = start_of(self._ledger).step
        if step < self._recipe.num_steps and self._passed_by(step):
            raise self._reached(step)

    def watched(self, work: Generator[Event, None, int], session: Session) -> Generator[Event, None, int]:
        """Yield the loop's events and the checkpoints that it makes; stop it before `max_price` is passed."""
        stopping = False
        try:
            event = next(work)
            while True:
                try:
                    yield event
                # What is thrown in belongs to the loop, which saves its state.
                except BaseException as thrown:
                    event = work.throw(thrown)
                    continue
                yield from session.news()
                measured = isinstance(event, Metrics) and "train/loss" in event.values
                # The loop reads a step's values when the next one was sent: what follows is the one after that.
                if measured and not stopping and self._passed_by(self._sent_steps()):
                    stopping = True
                    event = work.throw(StopAsked("max_price"))  # the loop saves the state first
                else:
                    event = next(work)
        except StopIteration as end:
            yield from session.news()
            step: int = end.value
            return step
        except StopAsked:
            yield from session.news()
            if stopping:
                raise self._reached(start_of(self._ledger).step) from None
            raise

    # Not the engine's own count: a replay is behind what was sent, and what was sent is paid for.
    def _sent_steps(self) -> int:
        """Return the optimizer steps that are behind the model."""
        steps = [entry.sent.step for entry in self._ledger.entries if entry.sent.kind == "optim_step"]
        return max(steps) + 1 if steps else start_of(self._ledger).step

    def _passed_by(self, step: int) -> bool:
        """Say whether the optimizer step after so many, and an evaluation that is due there, would pass the limit."""
        if self._most is None or self._rates is None or step >= self._recipe.num_steps:
            return False
        rows = self._tokens["train"]
        chosen = batch(len(rows), self._recipe.hyperparameters.batch_size, self._recipe.seed, step)
        learned = sum(row_tokens(rows[number]) for number in chosen)
        scored = 0 if self._recipe.method.linear else learned
        if step % self._recipe.evaluate_every == 0:
            scored += self._held_out_tokens()
        next_step = Usage(forward_backward=learned, forward=scored)
        # By the higher bound: a limit that might be passed is passed.
        return self.used.dollars(self._rates)[1] + next_step.dollars(self._rates)[1] > self._most

    def _held_out_tokens(self) -> int:
        if self._held_out is None:
            # Once, as it walks through all rows.
            self._held_out = sum(map(row_tokens, self._tokens.get("validation", ())))
        return self._held_out

    def _reached(self, step: int) -> PriceReached:
        return PriceReached(
            f"max_price: got {self._most:g}; {self.used} tokens are used{self.in_words(self.used)}, and the next "
            f"optimizer step would pass it; stopped after {step} of {self._recipe.num_steps} steps, which are saved; "
            "give the same command with a higher max_price to continue."
        )
