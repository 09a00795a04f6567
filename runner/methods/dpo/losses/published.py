"""Published preference losses, with their equations and where ours departs from them."""

from typing import TYPE_CHECKING

from runner.methods.dpo.losses import loss_type

if TYPE_CHECKING:
    from torch import Tensor


def _smoothed(margin: "Tensor", label_smoothing: float) -> "Tensor":
    """Return -log sigmoid(margin), a share `label_smoothing` of it for the pair the other way round."""
    from torch.nn.functional import logsigmoid

    return -(1 - label_smoothing) * logsigmoid(margin) - label_smoothing * logsigmoid(-margin)


@loss_type()
def sigmoid(chosen: "Tensor", rejected: "Tensor", *, beta: float, label_smoothing: float) -> "Tensor":
    """DPO (Rafailov et al. 2023, arXiv:2305.18290), equation 7: -log sigmoid(beta * (chosen - rejected)).

    With `label_smoothing` it is conservative DPO (Mitchell 2023, https://ericmitchell.ai/cdpo.pdf, equation 3):
    minimal where the policy prefers the chosen answer with probability 1 - label_smoothing. TRL's `sigmoid` has no
    smoothing. With `length_normalised` it is TRL's `sigmoid_norm`, the loss of Tulu 3 (arXiv:2411.15124).
    """
    return _smoothed(beta * (chosen - rejected), label_smoothing)


@loss_type(per_token=True, beta=(0.5, "the margin aimed at, 1 / (2 beta), is then 1 nat a token"))
def ipo(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """IPO (Azar et al. 2023, arXiv:2310.12036), equation 17: (chosen - rejected - 1 / (2 beta))^2, beta its tau.

    Departure: the paper's scores are sums, ours and TRL's are per token, which IPO's authors confirmed to TRL as meant.
    """
    return (chosen - rejected - 1 / (2 * beta)) ** 2


@loss_type()
def hinge(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """SLiC (Zhao et al. 2023, arXiv:2305.10425): max(0, 1 - beta * (chosen - rejected)).

    Departure: SLiC compares the policy's log-probabilities. As in TRL the reference's are taken off, which is the
    hinge-norm of RSO (Liu et al. 2023, arXiv:2309.06657).
    """
    from torch import relu

    return relu(1 - beta * (chosen - rejected))


@loss_type(needs=("label_smoothing",))
def robust(chosen: "Tensor", rejected: "Tensor", *, beta: float, label_smoothing: float) -> "Tensor":
    """Robust DPO (Chowdhury et al. 2024, arXiv:2403.00409): DPO's loss, unbiased where labels are flipped.

    ((1 - e) * loss(chosen, rejected) - e * loss(rejected, chosen)) / (1 - 2 e), where the share e = `label_smoothing`
    of the pairs is the wrong way round. It has no lower bound: what a pair gains by being right keeps growing.
    """
    from torch.nn.functional import logsigmoid

    margin = beta * (chosen - rejected)
    right, flipped = -logsigmoid(margin), -logsigmoid(-margin)
    return ((1 - label_smoothing) * right - label_smoothing * flipped) / (1 - 2 * label_smoothing)


@loss_type(rpo_alpha=(0.0, "apo_zero raises the chosen answer by itself"))
def apo_zero(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """APO-zero (D'Oosterlinck et al. 2024, arXiv:2408.06266), equation 7.

    1 - sigmoid(beta * chosen) + sigmoid(beta * rejected): the chosen answer up and the rejected one down, each by
    itself; for answers that are better than what the model says.
    """
    from torch import sigmoid

    return 1 - sigmoid(beta * chosen) + sigmoid(beta * rejected)


@loss_type(rpo_alpha=(0.0, "sppo_hard raises the chosen answer by itself"))
def sppo_hard(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """SPPO (Wu et al. 2024, arXiv:2405.00675), equation 4.7, as TRL has it.

    (chosen - 1 / (2 beta))^2 + (rejected + 1 / (2 beta))^2, 1 / beta being the paper's eta. Departure: the paper
    estimates how likely an answer wins; a pair says so outright, so the probabilities are 1 and 0.
    """
    return (chosen - 0.5 / beta) ** 2 + (rejected + 0.5 / beta) ** 2


@loss_type(
    reference=False,
    per_token=True,
    beta=(2.0, "where SimPO's authors begin; rewards are a token's, so it is larger than DPO's"),
    gamma=(1.0, "half of the usual beta, where SimPO's authors begin"),
    rpo_alpha=(0.0, "SimPO has no such term"),
)
def simpo(chosen: "Tensor", rejected: "Tensor", *, beta: float, gamma: float, label_smoothing: float) -> "Tensor":
    """SimPO (Meng et al. 2024, arXiv:2405.14734), equation 6: -log sigmoid(beta * (chosen - rejected) - gamma).

    `gamma` is the target margin of rewards, as in the paper and in TRL's `simpo_gamma`; the authors' code has
    gamma / beta as a key. With `label_smoothing` as in TRL's CPO trainer.
    """
    return _smoothed(beta * (chosen - rejected) - gamma, label_smoothing)


@loss_type(
    reference=False,
    per_token=True,
    beta=(0.1, "the weight of the odds ratio in the paper, its lambda"),
    rpo_alpha=(0.0, "ORPO's loss holds the chosen answer's likelihood already"),
)
def orpo(chosen: "Tensor", rejected: "Tensor", *, beta: float) -> "Tensor":
    """ORPO (Hong et al. 2024, arXiv:2403.07691), equations 6 and 7; `beta` is its lambda, as in TRL.

    -chosen + beta * -log sigmoid(log (odds(chosen) / odds(rejected))), where odds(y) = p / (1 - p) of the mean
    token's p = exp(score). Departure from TRL: the likelihood is the answer's; TRL takes in the prompt's tokens too.
    """
    import torch
    from torch.nn.functional import logsigmoid

    def log_odds(score: torch.Tensor) -> torch.Tensor:
        # An answer that is certain, to float32, has infinite odds and no gradient that is a number.
        below = score.clamp(max=-1e-6)
        return below - torch.log(-torch.expm1(below))

    return -chosen - beta * logsigmoid(log_odds(chosen) - log_odds(rejected))
