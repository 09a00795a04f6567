"""What a session has been through, where an answer was lost: as its weights show it, and the service's count of steps.

A step that was sent again may arrive twice after all, when a proxy held the first request back. Where the service
counts steps that is seen at the next one; and no checkpoint counts whose weights have moved since the last step.
"""

from collections.abc import Callable

import numpy as np

from runner.errors import RunnerError, ServiceError
from runner.remote.engine.ledger import Ledger, Opened
from runner.remote.engine.service import Answer, Score, Service

CLEAR = 10.0
"""A movement is a step's, and not the engine's noise, where it is so many times as large as the noise."""
LATE = "a request that was taken for lost has arrived after all"
Scored = tuple[Score, Answer]
"""Some rows, and their log-probabilities by the weights as they were."""


class InDoubt(ServiceError):
    """What the session's model has been through is not known: a new one has to begin at the last checkpoint."""


class Doubt:
    """Looks at the weights of a session, and at the steps that the service counts."""

    def __init__(self, service: Service, ledger: Ledger, ask: Callable[[Score, int], Answer]) -> None:
        self._service, self._ledger, self._ask = service, ledger, ask
        self.last: Scored | None = None
        """The rows that were scored last."""
        self._stepped: Scored | None = None  # after the last step, in a session with one that was sent again

    def moved(self) -> bool:
        """Say whether the weights have moved since the last rows were scored. Raises `InDoubt` where noise hides it."""
        assert self.last is not None
        # The rows of this very step: they move the most, and their values before it are known for nothing.
        apart, noise = self._apart(self.last), self._opened.noise
        # The learning rate is above zero at every step, so that equal numbers prove that there was none.
        if apart > CLEAR * noise:
            return True
        if noise == 0:
            return False
        raise InDoubt(f"the answer of optim_step was lost, and {apart:.2g} nats are no more than the engine's noise")

    def note_step(self) -> None:
        """Keep what the weights are after a step, in a session in which they may move by themselves."""
        if self._ledger.resent:
            assert self.last is not None
            score = Score(self.last[0].data, learns=False)
            self._stepped = score, self._ask(score, self._opened.step)

    def demand_still(self) -> None:
        """Raise `InDoubt` where the weights may have moved between the last step and a save that was just made."""
        if not self._ledger.resent:
            return
        # Killed in between, nobody knows what they were after the step.
        if self._stepped is None or self._apart(self._stepped) > CLEAR * self._opened.noise:
            raise InDoubt(f"{LATE}, before a checkpoint was made")

    def demand_count(self, step: int, answer: Answer) -> None:
        """Raise an error where the service counts other optimizer steps than those after `step` and one more.

        Raises `InDoubt` where a request of ours may be the reason, `RunnerError` where it is another driver.
        """
        # After a probe there is no answer, and so no count; that of the next step covers both.
        count = answer.values.get("step_count")
        if not self._service.counts_steps or count is None:
            return
        # From a checkpoint a service counts on, or from zero: neither is documented.
        expected = {self._opened.counted + step + 1, step - self._opened.step + 1}
        if count in expected:
            return
        what = f"the service counts {count:.0f} optimizer steps, where {max(expected)} were sent"
        if self._ledger.resent or count < min(expected):
            raise InDoubt(f"{what}: {LATE}" if self._ledger.resent else what)
        raise another_driver(self._opened.handle.session, what)

    @property
    def _opened(self) -> Opened:
        assert self._ledger.opened is not None
        return self._ledger.opened

    def _apart(self, before: Scored) -> float:
        """Return how far, in nats, the log-probabilities of some rows have moved since they were scored."""
        now = self._ask(Score(before[0].data, learns=False), self._opened.step)
        return float(np.abs(now.array - before[1].array).max(initial=0.0))


def another_driver(session: str, what: str) -> RunnerError:
    """Return the error for a session that somebody else drives, too."""
    return RunnerError(
        f"session {session}: {what}; another driver works on it; stop that one, and give the same command again."
    )
