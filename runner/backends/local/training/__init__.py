"""The training loop of the local engine, what it learns from, and its checkpoints."""
