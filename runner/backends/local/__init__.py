"""Local torch: LoRA or full fine-tuning on this machine's CPU or GPU.

backend.py is all that a plan needs; torch is imported by the steps (steps.py).
"""

from runner.backends.local.keys import Local

KEYS = Local
