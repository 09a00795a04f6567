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

COUNTED_ROWS = 1024
"""Prompts whose tokens are counted for an estimate; they stand for the others."""


def check(request: Request) -> None:
    """Raise `RequestError` for what does not go with answers that a service samples while the model trains."""
    planned.check(request)
    keys, _ = methods.load(request.method).resolve(msgspec.convert(request.hyperparameters, RFT), 1)
    # The log-probabilities of a service's `forward` are those of the model as it is.
    if keys.temperature != 1:
        raise RequestError(
            f"{request.method}.temperature: got {keys.temperature:g}; the log-probabilities of backend="
            f"{request.backend.name} are those at 1, and so are its answers; leave it out."
        )
    # An adapter cannot be switched off at a service: once it has learned, the base model's numbers are out of reach.
    if keys.beta != 0:
        raise RequestError(
            f"{request.method}.beta: got {keys.beta:g}; backend={request.backend.name} has no log-probabilities of the "
            "base model for answers that are sampled later; set it to 0, or use backend=local."
        )


def estimate(run: "Run", num_steps: int) -> Usage | None:
    """Return the most tokens that a whole run takes; None where the model's tokenizer is not on this machine."""
    folder = models.cached(run.plan.model.source)
    if folder is None:
        return None
    # Bounds, as nobody knows how long answers will be.
    learned, held_out = planned.num_answers(run, num_steps)
    prompt, most = mean_prompt(run, ChatTokenizer(models.tokenizer_folder(folder))), run.hyperparameters.max_new_tokens
    # An answer is a sequence of its own wherever it is scored, and its prompt is read for each.
    scored = round(run.hyperparameters.updates_per_rollout * learned * (prompt + most))
    return Usage(scored, scored, round((learned + held_out) * prompt), (learned + held_out) * most)


def step_usage(run: "Run", prompt: float, evaluate_every: int, step: int) -> Usage:
    """Return the most tokens that the optimizer step after so many takes, an evaluation that is due included.

    `prompt` is the mean number of tokens of a prompt.
    """
    # Sampling is paid for in the first of the steps that learn from a rollout.
    keys = run.hyperparameters
    answers = keys.batch_size * keys.group_size
    scored = round(answers * (prompt + keys.max_new_tokens))
    sampled = answers * (1 + keys.extra_rounds) if step % keys.updates_per_rollout == 0 else 0
    if step % evaluate_every == 0 and run.plan.validation:
        sampled += run.plan.validation.rows * keys.eval_samples
    return Usage(scored, scored, round(sampled * prompt), sampled * keys.max_new_tokens)


def mean_prompt(run: "Run", tokenizer: ChatTokenizer) -> float:
    """Return the mean number of tokens of a prompt."""
    # The first rows stand for all, as their order says nothing of their length.
    prompts = [problem_of(row).given for row in islice(run.rows("train"), COUNTED_ROWS)]
    return sum(len(tokenizer.encode_prompt(each)) for each in prompts) / len(prompts)
