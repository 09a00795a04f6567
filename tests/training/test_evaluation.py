"""What evaluations of held-out rows come to: means, and the best so far."""

from runner.training.evaluated import EvaluationState
from runner.training.evaluation import mean


def test_a_mean_is_weighted() -> None:
    rows = [{"loss": 1.0, "weight": 1.0}, {"loss": 3.0, "weight": 3.0}]
    assert mean(rows) == {"eval/loss": 2.5}


def test_the_lowest_loss_counts_and_the_untrained_model_does_not() -> None:
    evaluated = EvaluationState()
    said = [evaluated.update(step, loss) for step, loss in enumerate([0.1, 0.9, 0.9, 0.5, 0.7, float("nan"), 0.6])]
    assert said == [False, True, False, True, False, False, False]
    assert (evaluated.best_loss, evaluated.best_step, evaluated.since_best, evaluated.evaluated_step) == (0.5, 3, 3, 6)
