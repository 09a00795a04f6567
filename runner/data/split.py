"""Which rows are held out for validation when no file is given for it.

Each row is decided by itself, from its prompt: it stays where it is when rows are added, removed or
reordered, and rows that share a prompt are never divided between training and validation.
"""

import hashlib

from runner.data.rows import Row, canonical, prompt_of


def is_held_out(row: Row, fraction: float, seed: int) -> bool:
    """Say whether a row is for validation; on average a `fraction` (0 to 1) of the prompts is."""
    digest = hashlib.sha256(b"%d " % seed + canonical(prompt_of(row))).digest()
    return int.from_bytes(digest[:8], "big") < fraction * 2**64
