"""What a run at a remote engine may cost and has cost: it stops at a checkpoint before `max_price` would be passed."""

from collections.abc import Callable, Generator, Mapping, Sequence
from functools import cache
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


def stored_step(recipe: Recipe, tokens: Mapping[Split, Sequence[TokenRow]]) -> Callable[[int], Usage]:
    """Return what says how many tokens the optimizer step after so many takes, of rows that are stored."""

    # Once, as it walks through all rows.
    @cache
    def held_out() -> int:
        return sum(map(row_tokens, tokens.get("validation", ())))

    def usage(step: int) -> Usage:
        rows = tokens["train"]
        chosen = batch(len(rows), recipe.hyperparameters.batch_size, recipe.seed, step)
        learned = sum(row_tokens(rows[number]) for number in chosen)
        scored = 0 if recipe.method.linear else learned
        return Usage(learned, scored + (held_out() if step % recipe.evaluate_every == 0 else 0))

    return usage


class Budget:
    """The tokens of a run by its ledger, and what is left of `max_price`."""

    def __init__(
        self, run: "Run", target: Target, recipe: Recipe, next_step: Callable[[int], Usage], ledger: Ledger
    ) -> None:
        """`next_step` says what the optimizer step after so many takes, an evaluation that is due there included."""
        self._most, self._rates, self._recipe = run.request.max_price, target.rates, recipe
        self._next_step, self._ledger = next_step, ledger

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
        # By the higher bound: a limit that might be passed is passed.
        return self.used.dollars(self._rates)[1] + self._next_step(step).dollars(self._rates)[1] > self._most

    def _reached(self, step: int) -> PriceReached:
        return PriceReached(
            f"max_price: got {self._most:g}; {self.used} tokens are used{self.in_words(self.used)}, and the next "
            f"optimizer step would pass it; stopped after {step} of {self._recipe.num_steps} steps, which are saved; "
            "give the same command with a higher max_price to continue."
        )
