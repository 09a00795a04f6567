"""Fine-tuning sessions of Microsoft Foundry: LoRA on open models there, driven by our own loop.

backend.py is all that a plan needs; packages for HTTP and Azure's credentials are imported by the steps.
"""

from runner.backends.foundry_sessions.keys import FoundrySessions

KEYS = FoundrySessions
