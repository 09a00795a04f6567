"""Faults that tests arm: which request they strike, what they do to it, how often."""

import threading
from typing import Any

KINDS = (
    "status", "reset_before", "reset_after", "cut", "slow", "repeat_page", "shuffle_events", "vanish", "job_status",
)  # fmt: skip


class Fault:
    """A fault: `skip` matching requests pass, then the next `times` are struck.

    `on` names the requests as `routes.NAMES` does ("GET /fine_tuning/jobs/{id}", "PUT deployment").
    What a kind takes besides: `status` status, body, headers · `slow` seconds · `job_status` value.
    """

    def __init__(self, on: str, kind: str, times: int = 1, skip: int = 0, **details: Any) -> None:
        if kind not in KINDS:
            raise ValueError(f"Fault: got kind {kind!r}; allowed: {', '.join(KINDS)}.")
        self.on = on
        self.kind = kind
        self.times = times
        self.skip = skip
        self.details = details


class Faults:
    """The armed faults."""

    def __init__(self) -> None:
        self._armed: list[Fault] = []
        self._lock = threading.Lock()

    def arm(self, fault: Fault) -> None:
        """Add a fault."""
        with self._lock:
            self._armed.append(fault)

    def take(self, name: str) -> Fault | None:
        """Return the fault that strikes this request, if any; every matching request counts."""
        with self._lock:
            for fault in self._armed:
                if fault.on != name or fault.times <= 0:
                    continue
                if fault.skip > 0:
                    fault.skip -= 1
                    return None
                fault.times -= 1
                return fault
        return None
