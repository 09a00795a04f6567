"""Microsoft Foundry, a hosted service: upload, create, follow, results, and if wanted a deployment that answers.

backend.py is all that a plan needs; the SDKs of the service are imported by the steps (steps.py).
"""

from runner.backends.foundry.keys import Foundry

KEYS = Foundry
