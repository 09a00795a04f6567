"""Tinker: LoRA on open models of Thinking Machines' service, or any that speaks its API, driven by our own loop.

backend.py is all that a plan needs; the messages of the package `tinker` are imported by the steps.
"""

from runner.backends.tinker.keys import TinkerKeys

KEYS = TinkerKeys
