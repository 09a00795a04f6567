"""DPO, whose jobs minimise equation 7 of arXiv:2305.18290 alone.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/fine-tuning-direct-preference-optimization
"""

from runner.hosted.methods import WireForm
from runner.methods.dpo.losses import NEUTRAL

WIRE_FORM = WireForm(
    type="dpo",
    columns={
        "loss": "loss",
        "accuracy": "reward_accuracy",
        "reward_accuracy": "reward_accuracy",
        "rewards_accuracies": "reward_accuracy",
        "reward_margin": "reward_margin",
        "rewards_margins": "reward_margin",
        "reward_chosen": "reward_chosen",
        "rewards_chosen": "reward_chosen",
        "reward_rejected": "reward_rejected",
        "rewards_rejected": "reward_rejected",
    },
    fixed={"loss_type": "sigmoid", "rpo_alpha": 0.0, **NEUTRAL},
    limits={"beta": 2},  # the service's own range
)
