"""`session:ORG/NAME`: a base model of Foundry's fine-tuning sessions; `session:NAME@SOURCE` has other files."""

from runner.models.served_model import ServedModel

SOURCE = ServedModel(
    "session",
    no_rest=(
        "the base model's name is missing; set FOUNDRY_SESSION_MODEL, in the environment or in .env, to one that "
        "Foundry trains in sessions (Qwen/Qwen3.8-27B, say), or give model.source=session:ORG/NAME."
    ),
)
