"""Supervised fine-tuning: https://platform.openai.com/docs/api-reference/fine-tuning/create."""

from runner.hosted.methods import WireForm

WIRE_FORM = WireForm(
    type="supervised",
    columns={"loss": "loss", "mean_token_accuracy": "token_accuracy", "accuracy": "token_accuracy"},
)
