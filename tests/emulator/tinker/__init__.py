"""The Tinker API on a loopback port, over our own local engine, so that what is sent there really trains.

The unmodified package `tinker` runs against it. It knows nothing of the client under test. What is not known of the
real service is marked "unverified" where it is made up. Protocol: the package's `types`, `resources` and `proto`.
"""

from tests.emulator.tinker.emulator import TinkerEmulator

__all__ = ["TinkerEmulator"]
