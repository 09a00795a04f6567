"""Methods that learn from graded answers of the model's own, at a remote engine: what is refused, and what it takes.

steps.py has the steps of a run; this file imports no torch, as plans need it.
"""

from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from runner import methods, models
from runner.errors import RequestError
from runner.methods.rft import RFT
from runner.models.chat.tokenizer import ChatTokenizer
from runner.remote.money.rates import Usage
from runner.request.keys import Request
from runner.rollouts import planned
from runner.rollouts.sampled import problem_of

if TYPE_CHECKING:
    from runner.plan import Run
    from runner.remote.target import Limits

COUNTED_ROWS = 1024
"""Prompts whose tokens are counted for an estimate; they stand for the others."""


def check(request: Request, asks_base: bool) -> None:
    """Raise `RequestError` for what does not go with answers that a service samples while the model trains."""
    planned.check(request)
    keys, _ = methods.load(request.method).resolve(msgspec.convert(request.hyperparameters, RFT), 1)
    # Logits would be needed: what is learned, forward and forward_backward, has no temperature at any service.
    if keys.temperature != 1:
        raise RequestError(
            f"{request.method}.temperature: got {keys.temperature:g}; backend={request.backend.name} learns at 1 "
            "alone, and answers sampled at another one are another policy's; leave it out, or use backend=local."
        )
    # An adapter cannot be switched off at a service; where no other model can be asked, the base is out of reach.
    if keys.beta != 0 and not asks_base:
        raise RequestError(
            f"{request.method}.beta: got {keys.beta:g}; a session of backend={request.backend.name} answers for its "
            "own model alone, so that the base model's log-probabilities are out of reach; set it to 0, or use "
            "backend=tinker or backend=local."
        )


def estimate(run: "Run", limits: "Limits", num_steps: int) -> Usage | None:
    """Return the most tokens that a whole run takes; None where the model's tokenizer is not on this machine."""
    folder = models.cached(run.plan.model.source)
    if folder is None:
        return None
    # Bounds, as nobody knows how long answers will be.
    sampled, held_out = planned.num_answers(run, num_steps)
    prompt = mean_prompt(run, ChatTokenizer(models.tokenizer_folder(folder)))
    rollouts = -(-num_steps // run.hyperparameters.updates_per_rollout)
    return _usage(run, limits, prompt, num_steps * _batch(run), sampled + held_out, rollouts * _batch(run))


def step_usage(run: "Run", limits: "Limits", prompt: float, evaluate_every: int, step: int) -> Usage:
    """Return the most tokens that the optimizer step after so many takes, an evaluation that is due included.

    `prompt` is the mean number of tokens of a prompt.
    """
    # Sampling is paid for in the first of the steps that learn from a rollout.
    keys = run.hyperparameters
    fresh = _batch(run) if step % keys.updates_per_rollout == 0 else 0
    sampled = fresh * (1 + keys.extra_rounds)
    if step % evaluate_every == 0 and run.plan.validation:
        sampled += run.plan.validation.rows * keys.eval_samples
    return _usage(run, limits, prompt, _batch(run), sampled, fresh)


def _batch(run: "Run") -> int:
    """Return the answers that a step learns from: those of further rounds take the place of others."""
    return int(run.hyperparameters.batch_size * run.hyperparameters.group_size)


def _usage(run: "Run", limits: "Limits", prompt: float, learned: int, sampled: int, compared: int) -> Usage:
    """Return the most tokens of so many answers that are learned from, once for each time, sampled, and new in a batch.

    The last are compared with the base model, where `beta` asks for it.
    """
    most = run.hyperparameters.max_new_tokens
    # An answer is a sequence of its own wherever it is scored, and its prompt is read for each.
    scored, drawn = round(learned * (prompt + most)), round(sampled * (prompt + most))
    # Where a sampler leaves a log-probability out, its answers are scored before they are learned from.
    forward = scored if limits.complete_logps else scored + drawn
    # The base model reads an answer as a prompt, and is made to answer with one token.
    asked = compared if run.hyperparameters.beta else 0
    return Usage(scored, forward, round(sampled * prompt + asked * (prompt + most)), sampled * most + asked)


def mean_prompt(run: "Run", tokenizer: ChatTokenizer) -> float:
    """Return the mean number of tokens of a prompt."""
    # The first rows stand for all, as their order says nothing of their length.
    prompts = [problem_of(row).given for row in islice(run.rows("train"), COUNTED_ROWS)]
    return sum(len(tokenizer.encode_prompt(each)) for each in prompts) / len(prompts)
