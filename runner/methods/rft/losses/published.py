"""Published losses of policy gradients with their equations, and where ours departs from them.

Each is minimised; TRL's trainers have the same ones, under the names in the docstrings.
"""

from typing import TYPE_CHECKING

from runner.methods.rft.losses import Tokens, loss_type

if TYPE_CHECKING:
    from torch import Tensor


def clipped(tokens: Tokens, epsilon: float, epsilon_high: float) -> "Tensor":
    """Return -min(ratio · A, clip(ratio, 1 - epsilon, 1 + epsilon_high) · A) (PPO, arXiv:1707.06347, equation 7)."""
    import torch

    # The smaller of both, so that nothing is gained by going further once the ratio is far in the right direction.
    within = tokens.ratios.clamp(1 - epsilon, 1 + epsilon_high)
    return -torch.min(tokens.ratios * tokens.advantages, within * tokens.advantages)


@loss_type(mean="answer")
def grpo(tokens: Tokens, *, epsilon: float, epsilon_high: float) -> "Tensor":
    """GRPO (Shao et al. 2024, arXiv:2402.03300), equation 3; TRL's `grpo`.

    Each answer counts the same, however long: a token of a short good answer is pushed more than one of a long one.
    """
    return clipped(tokens, epsilon, epsilon_high)


@loss_type(mean="limit", baseline="mean")
def dr_grpo(tokens: Tokens, *, epsilon: float, epsilon_high: float) -> "Tensor":
    """Dr. GRPO (Liu et al. 2025, arXiv:2503.20783), section 3.2; TRL's `dr_grpo` with `scale_rewards="none"`.

    Divided by the longest answer allowed, a constant, so that neither length nor spread changes a token's weight.
    """
    return clipped(tokens, epsilon, epsilon_high)


@loss_type(mean="token", epsilon_high=(0.28, "DAPO's clip-higher: unlikely tokens may become likelier"))
def dapo(tokens: Tokens, *, epsilon: float, epsilon_high: float) -> "Tensor":
    """DAPO (Yu et al. 2025, arXiv:2503.14476), equation 8; TRL's `dapo` with `epsilon_high=0.28`.

    Each token of a batch counts the same. Departures: no further answers are drawn in place of groups without spread,
    and answers that are cut off are graded as any other, or masked (`rft.mask_truncated`).
    """
    return clipped(tokens, epsilon, epsilon_high)


@loss_type(
    mean="answer",
    ratio="answer_mean",
    epsilon=(3e-4, "GSPO's; a mean over an answer varies little"),
    epsilon_high=(4e-4, "GSPO's"),
)
def gspo(tokens: Tokens, *, epsilon: float, epsilon_high: float) -> "Tensor":
    """GSPO (Zheng et al. 2025, arXiv:2507.18071), equations 5 and 7: the ratio is an answer's, per token.

    TRL's `grpo` with `importance_sampling_level="sequence"`.
    """
    return clipped(tokens, epsilon, epsilon_high)


@loss_type(mean="answer", ratio="answer", baseline="others", kl_in_reward=True)
def rloo(tokens: Tokens, *, epsilon: float, epsilon_high: float) -> "Tensor":
    """RLOO (Ahmadian et al. 2024, arXiv:2402.14740), equation 8, clipped as TRL's RLOOTrainer has it.

    The ratio is that of whole answers, and `rft.beta` · KL is taken off the reward.
    """
    return clipped(tokens, epsilon, epsilon_high)


@loss_type(mean="token", epsilon_high=(5.0, "the bound itself; TRL's advice"))
def cispo(tokens: Tokens, *, epsilon_high: float) -> "Tensor":
    """CISPO (MiniMax 2025, arXiv:2506.13585), equations 4 and 5; TRL's `cispo`.

    -sg(min(ratio, epsilon_high)) · A · log policy: the weight of a token is bounded, and no token loses its gradient.
    """
    # No gradient through the weight: a clipped token keeps its own, which is the point of the method.
    weights = tokens.ratios.detach().clamp(max=epsilon_high)
    return -weights * tokens.advantages * tokens.logps
