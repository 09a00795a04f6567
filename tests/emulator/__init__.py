"""Microsoft Foundry's fine-tuning service on a loopback port, for the real SDKs to talk to.

It checks requests as the service does, moves jobs by a clock that tests can push, and fails on demand. It knows
nothing of the client under test. What is not known of the real service is marked "unverified" where it is made up.
"""

from tests.emulator.emulator import Emulator
from tests.emulator.faults import Fault
from tests.emulator.places import UNLIMITED, Limits
from tests.emulator.records import Script

__all__ = ["UNLIMITED", "Emulator", "Fault", "Limits", "Script"]
