"""Microsoft Foundry, a hosted service: upload, create, follow, results, and if wanted a deployment that answers.

This much is all that a plan needs; the SDKs of the service are imported by the steps (steps.py).
"""

from runner.backends.foundry.backend import FoundryBackend

BACKEND = FoundryBackend()
