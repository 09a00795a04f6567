"""What autograd hands from the forward to the backward pass of a function of ours, typed."""

from typing import Protocol

from torch import Tensor


class Context(Protocol):
    """The first argument of `torch.autograd.Function`'s methods, as far as it is used here."""

    # torch's own type of it (torch.autograd.function.FunctionCtx) knows neither of these two.
    saved_tensors: tuple[Tensor, ...]
    needs_input_grad: tuple[bool, ...]

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for the backward pass, where `saved_tensors` has them in this order, None included."""

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say that outputs have no gradient, so that nobody asks for one."""
