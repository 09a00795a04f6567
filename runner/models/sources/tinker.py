"""`tinker:ORG/NAME`: a base model that the Tinker service trains; `tinker:NAME@SOURCE` has other files."""

from runner.models.served_model import ServedModel

SOURCE = ServedModel(
    "tinker",
    no_rest=(
        "the base model's name is missing; set TINKER_MODEL, in the environment or in .env, to one that the service "
        "trains (Qwen/Qwen3-8B, say), or give model.source=tinker:ORG/NAME."
    ),
)
