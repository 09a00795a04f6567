"""Foundry's fine-tuning sessions on a loopback port, over our own local engine: what is sent there really trains.

The unmodified package `azure-ai-finetuningsessions` runs against it, its synchronous and its asynchronous client. It
knows nothing of the client under test. What is not known of the real service is marked "unverified".
"""

from tests.emulator.sessions.emulator import SessionsEmulator

__all__ = ["SessionsEmulator"]
