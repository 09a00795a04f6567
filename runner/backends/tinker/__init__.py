"""Tinker: LoRA on open models of Thinking Machines' service, or any that speaks its API, driven by our own loop.

This much is all that a plan needs; the messages of the package `tinker` are imported by the steps.
"""

from runner.backends.tinker.backend import TinkerBackend

BACKEND = TinkerBackend()
