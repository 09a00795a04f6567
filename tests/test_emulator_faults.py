"""Each fault as the real SDKs see it, the tokens, and the deployments."""

import time
from email.utils import formatdate
from typing import Any

import openai
import pytest

from tests.emulator import Emulator, Fault, Script
from tests.test_emulator import Client, Connect, client, connect  # noqa: F401 - fixtures

ONE_JOB = "GET /fine_tuning/jobs/{id}"
CREATE = "POST /fine_tuning/jobs"


@pytest.fixture
def quick(connect: Connect) -> Client:  # noqa: F811
    return connect("lax")
