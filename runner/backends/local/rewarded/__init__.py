"""Methods that learn from graded answers of the model's own, on this machine: what else they refuse.

steps.py has the steps of a run; this file imports no torch, as plans need it.
"""

from runner.backends.local.keys import Local
from runner.errors import RequestError
from runner.request.keys import Request
from runner.rollouts import planned


def check(request: Request) -> None:
    """Raise `RequestError` for what does not go with answers that are sampled while the model trains."""
    method, settings = request.method, Local.of(request)
    planned.check(request)
    if settings.ema_decay is not None:
        raise RequestError(
            f"backend.ema_decay: got {settings.ema_decay:g}; method={method} learns from answers of the weights that "
            "learn, not of their average; leave it out."
        )
    # A trace counts tokens of stored rows; here most of the time goes into sampling.
    if settings.profile:
        raise RequestError(
            f"backend.profile: got true; method={method} writes no trace; system/sampling_seconds and grading_seconds "
            "tell where the time goes; leave it out."
        )
