"""A preference loss in one file.

python -m runner dpo.loss_type=cpo
"""

from typing import TYPE_CHECKING

from runner.methods.dpo.losses import loss_type

if TYPE_CHECKING:
    from torch import Tensor


@loss_type(reference=False)
def cpo(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """CPO (Xu et al. 2024, arXiv:2401.08417), equation 3 without its SFT term, which is `dpo.rpo_alpha`."""
    from torch.nn.functional import logsigmoid

    return -logsigmoid(beta * (chosen - rejected))
