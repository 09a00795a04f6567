"""The request: its keys, their check, and how Hydra composes it."""
