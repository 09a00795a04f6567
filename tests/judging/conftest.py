"""The judge's emulator."""

from tests.judging.emulated import cloud, judge

__all__ = ["cloud", "judge"]
