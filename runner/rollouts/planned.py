"""What a plan says of a run that learns from its own answers: what is refused, and what it takes."""

from itertools import islice

from runner import distributed, methods
from runner.backends import Lines
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
from runner.training.schedule import evaluate_every

PRICED_ROWS = 8
"""Rows by which the price of a judge is estimated; the others are taken to be like them."""


def check(request: Request) -> None:
    """Raise `RequestError` for what does not go with answers that are sampled while the model trains."""
    method, keys = request.method, request.evaluation
    grader = grader_of(request)
    # One grade after the other, and files that one process writes.
    if distributed.this_rank().world_size > 1:
        raise RequestError(f"torchrun: method={method} runs in one process here; give the same command without it.")
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


def num_answers(run: Run, num_steps: int) -> tuple[int, int]:
    """Return the answers that a run samples to learn from in so many steps, and those to held-out rows, at most."""
    keys = run.hyperparameters
    # Rounded up: a rollout is sampled whole, even if the steps end within it. Each round may be as large as the first.
    rollouts = -(-num_steps // keys.updates_per_rollout)
    held_out = run.plan.validation.rows if run.plan.validation else 0
    every = evaluate_every(methods.load(run.plan.method).interval(keys, run.request.evaluation.every), num_steps)
    evaluations = 1 + -(-num_steps // every)
    learned = rollouts * (1 + keys.extra_rounds) * keys.batch_size * keys.group_size
    return learned, evaluations * held_out * keys.eval_samples


def cost(run: Run, num_steps: int) -> Cost:
    """Return what the judge of a run costs at most; how long it takes depends on how long its answers are."""
    price = _price(run, num_steps)
    return Cost(None, 0.0 if price is None else price.dollars)


def forecast(run: Run, num_steps: int) -> Lines:
    """Say what a run samples at most, and what its judge costs."""
    learned, held_out = num_answers(run, num_steps)
    keys = run.hyperparameters
    text = (
        f"{learned:,} in {num_steps:,} steps of {keys.batch_size} prompts × {keys.group_size}, {held_out:,} to "
        f"held-out rows; each of {keys.max_new_tokens:,} tokens at most"
    )
    price = _price(run, num_steps)
    return [("answers to sample and grade", text), *([] if price is None else [("judge", f"at most {price.sentence}")])]


def _price(run: Run, num_steps: int) -> Price | None:
    """Return what a judge costs for all answers, by the first rows; None where none is asked."""
    grader, keys = grader_of(run.request), run.request.evaluation.judge
    if not list(grader.models()):
        return None
    first = islice(run.rows("train"), PRICED_ROWS)
    rows = samples.asked(((problem_of(row), "") for row in first), None, by_prompt=False)
    # One answer to each of a few rows, times all answers: nobody knows how long they will be.
    found = judges.price(rows, grader, keys, Sampling(max_new_tokens=run.hyperparameters.max_new_tokens), ["policy"])
    assert found is not None
    factor = sum(num_answers(run, num_steps)) / len(rows)
    return Price(
        questions=round(found.questions * factor), cached=0, input_tokens=round(found.input_tokens * factor),
        output_tokens=round(found.output_tokens * factor),
        dollars=None if found.dollars is None else found.dollars * factor,
    )  # fmt: skip
