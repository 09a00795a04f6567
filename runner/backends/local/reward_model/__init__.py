"""Reward models on this machine: a head with one output on a language model. What they refuse; this imports no torch.

head.py puts a head on a model and saves both; scorer.py reads its numbers off packed rows.
"""

from runner.backends.local.keys import Local
from runner.errors import RequestError
from runner.request.keys import Request

USE = "evaluation.graders=[reward_model] with its key `model`"
"""What a reward model is for."""


def check(request: Request) -> None:
    """Raise `RequestError` for what does not go with a model that gives numbers and no answers."""
    method, settings, keys = request.method, Local.of(request), request.evaluation
    for key, value in (("graders", keys.graders), ("keep_by", keys.keep_by)):
        if value:
            raise RequestError(
                f"evaluation.{key}: got {value}, but method={method} trains a model that gives no answers to grade; "
                "leave it out."
            )
    if settings.runtime.shard:
        # FSDP gathers weights in the root's forward call, which the head's is not.
        raise RequestError(f"backend.runtime.shard: got true; method={method} is not sharded; leave it out.")
    if settings.quantization != "none":
        raise RequestError(
            f"backend.quantization: got {settings.quantization}; method={method} is saved merged, which weights in few "
            "bits would lose; use quantization=none."
        )
