"""The training loop, once for all engines: batches, learning rate, evaluation, checkpoints, early stop, resume.

It knows no engine and, at import, no torch. What it drives is an `Engine` (engine.py): the in-process one of the local
backend, or a service that offers the same primitives, for which by_primitives.py computes any of our losses.
"""
