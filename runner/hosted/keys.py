"""Keys of every backend whose work a hosted service does."""

from dataclasses import dataclass

from runner.request.types import PositiveFloat


@dataclass(frozen=True, kw_only=True)
class Polling:
    """Keys under `backend.polling`: how the service is asked; not part of the plan's identity."""

    every: PositiveFloat = 15.0
    """Seconds between two looks at a job, jittered; longer while it is queued."""
    requests_per_second: PositiveFloat = 5.0
    """The most requests this process sends, over all the jobs it follows."""
    patience: PositiveFloat = 900.0
    """Seconds a failing service is asked again before the runner gives up; a hosted job continues without it."""
