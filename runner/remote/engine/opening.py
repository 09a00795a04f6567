"""A session opened, found again, and ended; what the service does with a request that it has had is seen on opening."""

import time
from collections.abc import Mapping, Sequence

import numpy as np

from runner.errors import ServiceError
from runner.remote.engine.driver import Driver
from runner.remote.engine.ledger import Closed, Named, Opened, Opening
from runner.remote.engine.service import Conflict, Datum, Handle, Lost, Reason, Score, Start
from runner.remote.engine.settling import MOST_LOST

LABEL = "runner_session"
"""The label by which a session is found whose opening was never answered."""


def attached(driver: Driver) -> bool:
    """Say whether the ledger's session is still there; what was opened without our hearing of it is closed."""
    service, ledger = driver.service, driver.ledger
    if ledger.opening is not None:
        # Killed while its model was loaded, its id is known; before that it has to be looked for.
        for session in [ledger.named] if ledger.named else service.find({LABEL: ledger.opening}):
            service.close(session, "interrupted")
    if ledger.opened is None:
        return False
    if service.alive(driver.handle.session):
        return True
    ledger.add(Closed(driver.handle.session))
    return False


def open_session(driver: Driver, start: Start, step: int, probe: Sequence[Datum], labels: Mapping[str, str]) -> None:
    """Open a session with a model after `step` optimizer steps, and see what the service does with a request.

    A forward pass over the probe is sent twice under one number: whether the service then does it twice decides how a
    lost answer is settled. It is sent once more under another: how far the answers differ is the engine's noise.
    """
    service, label = driver.service, driver.service.label(start)
    # Before it is sent: after a kill the session is found by the label, and ended.
    driver.ledger.add(Opening(label))
    handle = service.open(start, {**labels, LABEL: label}, lambda session: driver.ledger.add(Named(session)))
    score = Score(probe, learns=False)
    # Under one number, then under another: a gradient would do harm, while a forward pass only has a price.
    first = _accepted(driver, handle, score, 1)
    again = _accepted(driver, handle, score, 1) if service.numbered else ""
    other = _accepted(driver, handle, score, 2)
    # A service that has lost a result so soon is of no use: `ResultGone` ends the run with a sentence.
    one, two = (service.result(request, score).array for request in (first, other))
    noise = float(np.abs(one - two).max(initial=0.0))
    opened = Opened(handle, start.state, step, 3, first == again, noise, time.time(), start.counted)
    driver.ledger.add(opened)
    driver.rewind()


def close(driver: Driver, reason: Reason) -> str | None:
    """End the session, if one is open; return its id."""
    session = driver.ledger.session
    if session is None:
        return None
    driver.service.close(session, reason)
    driver.ledger.add(Closed(session))
    driver.rewind()
    return session


def _accepted(driver: Driver, handle: Handle, score: Score, number: int) -> str:
    """Send a forward pass until it is accepted, and return the request's id."""
    for attempt in range(MOST_LOST):
        try:
            return driver.service.post(handle, score, number)
        except Conflict:
            return ""  # it refuses the number the second time: it does not answer as the first time
        except Lost:
            time.sleep(driver.pause * attempt)
    raise ServiceError(f"{driver.service.endpoint} fails or cannot be reached; the same command resumes.")
