"""What evaluations have shown so far, and what is saved of it next to weights and optimizer."""

import msgspec


class EvaluationState(msgspec.Struct):
    """The evaluations of held-out rows so far: the lowest loss, the step it was measured after, evaluations since."""

    best_loss: float | None = None
    best_step: int = 0
    since_best: int = 0
    evaluated_step: int = -1
    untrained: bool = False
    """Whether the model has been measured as it was before training."""

    def update(self, step: int, loss: float) -> bool:
        """Take note of a loss, or of what is to fall in its place; return whether it is the lowest so far.

        The untrained model (step 0) is no result.
        """
        self.evaluated_step = step
        # Equal is not better: of two equal ones the earlier is kept, which has trained less.
        better = step > 0 and (self.best_loss is None or loss < self.best_loss)
        if better:
            self.best_loss, self.best_step = loss, step
        self.since_best = 0 if better else self.since_best + (step > 0)
        return better


class Saved(msgspec.Struct, frozen=True):
    """What the loop saves next to an engine's own state: small JSON; order and rates follow from the step.

    `step` is the number of optimizer steps done, never that of the batch just trained: a loop that resumes from the
    latter trains a batch twice (thinking-machines-lab/tinker-cookbook#935).
    """

    step: int
    evaluated: EvaluationState
