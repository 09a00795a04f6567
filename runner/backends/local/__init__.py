"""Local torch: LoRA or full fine-tuning on this machine's CPU or GPU.

This much is all that a plan needs; torch is imported by the steps (steps.py).
"""

from runner.backends.local.backend import LocalBackend

BACKEND = LocalBackend()
