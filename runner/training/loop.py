"""The training loop: batches in a seeded order, one optimizer step a batch, checkpoints and evaluations on the way.

The state of training is the number of optimizer steps done; the order of rows follows from it, and the learning rate.
Whether a resumed run ends in the same bits is up to the engine, which says so (`Abilities.exact_resume`). What is
learned from (`Batches`) and what the model is judged by (`HeldOut`) are contracts: stored rows, or answers of its own.
"""

import time
from collections.abc import Generator

from runner.errors import RequestError, StopAsked
from runner.record.events import Event, Note
from runner.training.batches import Batch, Batches, StoredBatches
from runner.training.engine import Engine, Pending, problems
from runner.training.evaluated import EvaluationState, Saved
from runner.training.evaluation import GradedAnswers, HeldOut, HeldOutRows
from runner.training.examples import NONE_MISMATCHED, Examples, Mismatched
from runner.training.meter import Meter
from runner.training.recipe import Recipe


def train(
    engine: Engine, recipe: Recipe, rows: Examples, held_out: Examples, answers: GradedAnswers | None = None,
    mismatched: Mismatched = NONE_MISMATCHED,
) -> Generator[Event, None, int]:  # fmt: skip
    """Learn from stored rows; with `answers` each evaluation has the model's answers graded, and their mean decides
    which weights are the best; `mismatched` are there for a loss that needs them. Returns and raises as `learn` does.

    A loss with a reference needs the reference's log-probabilities only, which are the same at any time: computing
    them waits until rows are to be evaluated after some training, so that the first step need not wait for them.
    """
    judged = HeldOutRows(held_out, recipe.loss, answers, mismatched.held_out, recipe.sources)
    return (yield from learn(engine, recipe, StoredBatches(rows, recipe, mismatched.train), judged))


def learn(engine: Engine, recipe: Recipe, batches: Batches, held_out: HeldOut) -> Generator[Event, None, int]:
    """Train from the engine's latest saved state, or the start, to the end; yield metrics as they come.

    Returns the step whose weights are the result: the last, or the best one. Asked to stop, it saves the state first.
    Raises `RequestError` where the recipe asks for what the engine lacks.

    The model is judged before the first step, unless that does not need the model (`HeldOut.waits`).
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
                if due and (step or not held_out.waits):
                    yield from meter.flush()
                    with engine.timed("evaluation"):
                        yield from _evaluate(engine, recipe, held_out, step, evaluated)
                    meter.restart()
                if recipe.patience is not None and evaluated.since_best >= recipe.patience:
                    what = f"{held_out.metric} has not improved"
                    yield Note(f"stopped after {step} steps: {what} in {recipe.patience} evaluations")
                    break
                batch = yield from _batch(engine, batches, step, meter)
                values = _learn_from(engine, batch), engine.optim_step(recipe.adam(step))
                step += 1
                with engine.timed("logging"):
                    yield from meter.add(step, values, batch.num_tokens)
                # The last step has its checkpoint after the loop.
                if step % recipe.checkpoint_every == 0 and step < recipe.num_steps:
                    yield from meter.flush()  # what lies before a checkpoint is never measured again
                    engine.save_state(Saved(step, evaluated))
            yield from meter.flush()
            # The last weights may be the best; else the untrained values are all that is missing, if any.
            if len(held_out) and recipe.keep_best and evaluated.evaluated_step != step:
                yield from _evaluate(engine, recipe, held_out, step, evaluated)
            elif len(held_out) and held_out.waits:
                yield from held_out.untrained(evaluated)
        except StopAsked:
            engine.save_state(Saved(step, evaluated))
            engine.wait_saved()
            yield from meter.flush()  # the last step lies before the checkpoint, too
            raise
        engine.save_state(Saved(step, evaluated))
    # Without a measured loss there is no best: nothing was held out, or nothing was evaluated.
    return evaluated.best_step if recipe.keep_best and evaluated.best_loss is not None else step


def _batch(engine: Engine, batches: Batches, step: int, meter: Meter) -> Generator[Event, None, Batch]:
    """Return the batch after `step` steps; preparing it is not counted as time of the step."""
    began = time.perf_counter()
    batch = yield from batches.batch(engine, step)
    meter.pause(time.perf_counter() - began)
    return batch


def _learn_from(engine: Engine, batch: Batch) -> Pending:
    """Add the gradient of a batch; of one in which there is nothing to learn, none, and the weights stay."""
    learned = engine.forward_backward_custom(batch.examples, batch.loss) if batch.examples else lambda: {"loss": 0.0}
    return lambda: {**batch.values, **learned()}


def _evaluate(
    engine: Engine, recipe: Recipe, held_out: HeldOut, step: int, evaluated: EvaluationState
) -> Generator[Event, None, None]:
    """Evaluate after `step` steps and save the weights if they are the best so far and best is asked for."""
    objective = yield from held_out.evaluate(engine, step, evaluated)
    if evaluated.update(step, objective) and recipe.keep_best:
        engine.save_best()
