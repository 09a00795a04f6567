"""Methods that learn from graded answers of the model's own, on this machine: what they refuse, and what they take.

steps.py has the steps of a run; this file imports no torch, as plans need it.
"""

from itertools import islice

from runner import distributed
from runner.backends import Lines
from runner.backends.local.keys import Local
from runner.cost import Cost
from runner.errors import RequestError
from runner.evaluation import judges
from runner.evaluation.reward import grader_of
from runner.judging.price import Price
from runner.plan import Run
from runner.record import samples
from runner.record.samples import Sampling
from runner.request.keys import Request
from runner.rollouts.sampled import problem_of
from runner.training.schedule import count_steps, evaluate_every

PRICED_ROWS = 8
"""Rows by which the price of a judge is estimated; the others are taken to be like them."""


def check(request: Request) -> None:
    """Raise `RequestError` for what does not go with answers that are sampled while the model trains."""
    method, settings, keys = request.method, Local.of(request), request.evaluation
    grader = grader_of(request)
    # One grade after the other, and files that one process writes.
    if distributed.this_rank().world_size > 1:
        raise RequestError(f"torchrun: method={method} runs in one process here; give the same command without it.")
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
    if keys.keep_by is not None:
        raise RequestError(
            f"evaluation.keep_by: got {keys.keep_by}; method={method} goes by the held-out reward; leave it out."
        )
    if grader.compares:
        raise RequestError(
            f"{method}.grader: got type {grader.type}, which compares an answer with the base model's; allowed: "
            "graders of one answer; use it in evaluation.graders."
        )
    if request.mode == "run":
        # A plan can be made where no key is; a run would only fail after its first answers.
        judges.demand_key(keys.judge, [grader])


def num_answers(run: Run) -> tuple[int, int]:
    """Return the answers that a run samples to learn from, and those to held-out rows."""
    keys, num_steps = run.hyperparameters, steps_of(run)
    # Rounded up: a rollout is sampled whole, even if the steps end within it. Each round may be as large as the first.
    rollouts = -(-num_steps // keys.updates_per_rollout)
    held_out = run.plan.validation.rows if run.plan.validation else 0
    evaluations = 1 + -(-num_steps // interval(run, num_steps))
    learned = rollouts * (1 + keys.extra_rounds) * keys.batch_size * keys.group_size
    return learned, evaluations * held_out * keys.eval_samples


def steps_of(run: Run) -> int:
    """Return the optimizer steps of a run: each rollout is learned from so many times."""
    keys = run.hyperparameters
    times = keys.n_epochs * keys.updates_per_rollout
    return count_steps(times, keys.batch_size, run.plan.train.rows, Local.of(run.request).max_steps)


def interval(run: Run, num_steps: int) -> int:
    """Return the optimizer steps between evaluations: by the method's own key, else by `evaluation.every`."""
    own = run.hyperparameters.eval_interval
    return evaluate_every(run.request.evaluation.every if own == "auto" else own, num_steps)


def cost(run: Run) -> Cost:
    """Return what the judge of a run costs at most; how long it takes depends on how long its answers are."""
    price = _price(run)
    return Cost(None, 0.0 if price is None else price.dollars)


def forecast(run: Run) -> Lines:
    """Say what a run samples at most, and what its judge costs."""
    learned, held_out = num_answers(run)
    keys = run.hyperparameters
    text = (
        f"{learned:,} in {steps_of(run):,} steps of {keys.batch_size} prompts × {keys.group_size}, {held_out:,} to "
        f"held-out rows; each of {keys.max_new_tokens:,} tokens at most"
    )
    price = _price(run)
    return [("answers to sample and grade", text), *([] if price is None else [("judge", f"at most {price.sentence}")])]


def _price(run: Run) -> Price | None:
    """Return what a judge costs for all answers, by the first rows; None where none is asked."""
    grader, keys = grader_of(run.request), run.request.evaluation.judge
    if not list(grader.models()):
        return None
    first = islice(run.rows("train"), PRICED_ROWS)
    rows = samples.asked(((problem_of(row), "") for row in first), None, by_prompt=False)
    # One answer to each of a few rows, times all answers: nobody knows how long they will be.
    found = judges.price(rows, grader, keys, Sampling(max_new_tokens=run.hyperparameters.max_new_tokens), ["policy"])
    assert found is not None
    factor = sum(num_answers(run)) / len(rows)
    return Price(
        questions=round(found.questions * factor), cached=0, input_tokens=round(found.input_tokens * factor),
        output_tokens=round(found.output_tokens * factor),
        dollars=None if found.dollars is None else found.dollars * factor,
    )  # fmt: skip
