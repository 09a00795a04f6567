"""Reinforcement fine-tuning, by the service's reinforcement jobs.

https://learn.microsoft.com/azure/ai-foundry/openai/how-to/reinforcement-fine-tuning
https://platform.openai.com/docs/api-reference/fine-tuning/create
"""

from runner.hosted.methods import WireForm

WIRE_FORM = WireForm(
    type="reinforcement",
    # The documentation writes train_reward_mean, the service's events have train_mean_reward.
    columns={"mean_reward": "reward", "reward_mean": "reward", "mean_parse_error": "parse_errors"},
    renamed={
        r"(?:scores/)?valid_reward_mean": "eval/reward",
        r"scores/train_reward_mean": "train/reward",
        r"scores/graders/(\w[\w.-]*)/train_reward_mean": r"train/reward_\1",
        r"scores/graders/(\w[\w.-]*)/valid_reward_mean": r"eval/reward_\1",
        r"completion_tokens_mean": "train/answer_tokens",
        r"valid_completion_tokens_mean": "eval/answer_tokens",
        r"reasoning_tokens_mean": "train/reasoning_tokens",
        r"valid_reasoning_tokens_mean": "eval/reasoning_tokens",
    },
    extra_keys=("grader", "response_format"),
    needs_validation=True,
    paid_by_hour=True,
)
