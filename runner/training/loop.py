"""The training loop: batches in a seeded order, one optimizer step a batch, checkpoints and evaluations on the way.

The state of training is the number of optimizer steps done; the order of rows follows from it, and the learning rate.
Whether a resumed run ends in the same bits is up to the engine, which says so (`Abilities.exact_resume`).
"""

import time
from collections.abc import Generator

from runner.errors import RequestError, StopAsked
from runner.record.events import Event, Metrics, Note
from runner.training.answers import GradedAnswers
from runner.training.engine import Engine, problems
from runner.training.evaluated import EvaluationState, Saved
from runner.training.evaluation import evaluate, evaluate_reference, mean
from runner.training.examples import Example, Examples, num_tokens
from runner.training.meter import Meter
from runner.training.recipe import Recipe
from runner.training.schedule import batch


def train(
    engine: Engine, recipe: Recipe, rows: Examples, held_out: Examples, answers: GradedAnswers | None = None
) -> Generator[Event, None, int]:
    """Train from the engine's latest saved state, or the start, to the end; yield metrics as they come.

    With `answers` each evaluation has the model's answers graded, and their mean decides which weights are the best.

    Returns the step whose weights are the result: the last, or the best one. Asked to stop, it saves the state first.
    Raises `RequestError` where the recipe asks for what the engine lacks.

    Held-out rows are evaluated before the first step, if that needs the model. A loss with a reference needs the
    reference's log-probabilities only, which are the same at any time: computing them waits until rows are to be
    evaluated after some training, so that the first step need not wait for them.
    """
    if wrong := problems(engine.abilities, recipe.max_grad_norm):
        raise RequestError("\n".join(wrong))
    meter = Meter(engine, recipe)
    with engine.training():
        saved = engine.load_state() or Saved(0, EvaluationState())
        step, evaluated = saved.step, saved.evaluated
        if step and not engine.abilities.exact_resume:
            yield Note(f"resumed after {step} steps; this engine does not promise the last bits of an unbroken run")
        try:
            while step < recipe.num_steps:
                # A run that resumes at this step has the evaluation in its journal already.
                due = len(held_out) and step % recipe.evaluate_every == 0 and evaluated.evaluated_step != step
                # A loss with a reference has the untrained model's values without the model (`_evaluate_untrained`).
                if due and (step or not recipe.loss.knows_untrained):
                    yield from meter.flush()
                    with engine.timed("evaluation"):
                        yield from _evaluate(engine, recipe, held_out, step, evaluated, answers)
                    meter.restart()
                if recipe.patience is not None and evaluated.since_best >= recipe.patience:
                    what = "eval/loss has not fallen" if answers is None else f"{answers.metric} has not risen"
                    yield Note(f"stopped after {step} steps: {what} in {recipe.patience} evaluations")
                    break
                chosen = yield from _batch(engine, recipe, rows, step, meter)
                values = engine.forward_backward_custom(chosen, recipe.loss), engine.optim_step(recipe.adam(step))
                step += 1
                with engine.timed("logging"):
                    yield from meter.add(step, values, sum(num_tokens(example.tokens) for example in chosen))
                # The last step has its checkpoint after the loop.
                if step % recipe.checkpoint_every == 0 and step < recipe.num_steps:
                    yield from meter.flush()  # what lies before a checkpoint is never measured again
                    engine.save_state(Saved(step, evaluated))
            yield from meter.flush()
            # The last weights may be the best; else the untrained values are all that is missing, if any.
            if len(held_out) and recipe.keep_best and evaluated.evaluated_step != step:
                yield from _evaluate(engine, recipe, held_out, step, evaluated, answers)
            elif len(held_out) and recipe.loss.knows_untrained:
                yield from _evaluate_untrained(recipe, held_out, evaluated)
        except StopAsked:
            engine.save_state(Saved(step, evaluated))
            engine.wait_saved()
            yield from meter.flush()  # the last step lies before the checkpoint, too
            raise
        engine.save_state(Saved(step, evaluated))
    # Without a measured loss there is no best: nothing was held out, or nothing was evaluated.
    return evaluated.best_step if recipe.keep_best and evaluated.best_loss is not None else step


def _batch(
    engine: Engine, recipe: Recipe, rows: Examples, step: int, meter: Meter
) -> Generator[Event, None, list[Example]]:
    """Return the rows of the batch after `step` steps; preparing them is not counted as time of the step."""
    began = time.perf_counter()
    indices = batch(len(rows), recipe.hyperparameters.batch_size, recipe.seed, step)
    yield from rows.ready(indices, "train")
    meter.pause(time.perf_counter() - began)
    with engine.timed("data"):
        return [rows[index] for index in indices]


def _evaluate(
    engine: Engine,
    recipe: Recipe,
    held_out: Examples,
    step: int,
    evaluated: EvaluationState,
    answers: GradedAnswers | None,
) -> Generator[Event, None, None]:
    """Evaluate after `step` steps and save the weights if they are the best so far and best is asked for."""
    if recipe.loss.knows_untrained:
        yield from _evaluate_untrained(recipe, held_out, evaluated)
    values = mean((yield from evaluate(engine, held_out, recipe.loss, "train")))
    # The method's own loss decides unless a grader is to, as it is what training lowers.
    objective = values["eval/loss"]
    if answers is not None:
        values |= yield from answers.graded(engine, step)
        objective = -values[answers.metric]
    yield Metrics(step, values)
    if evaluated.update(step, objective) and recipe.keep_best:
        engine.save_best()


def _evaluate_untrained(recipe: Recipe, held_out: Examples, evaluated: EvaluationState) -> Generator[Event, None, None]:
    """Evaluate the model as it was before the first step, once, by the reference's log-probabilities."""
    if not evaluated.untrained:
        yield Metrics(0, mean((yield from evaluate_reference(held_out, recipe.loss, "train"))))
        evaluated.untrained = True
