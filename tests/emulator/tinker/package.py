"""The package `tinker` in a process that lives on after it: its connections are closed when a test is done."""

import threading


def close_connections() -> None:
    """Close the connections that the package leaves open after `close`, as it expects its process to end.

    Each would be a warning in whatever test runs when it is collected.
    """
    from tinker.lib.internal_client_holder import _internal_client_holder_thread_singleton as background

    loop, closed = background.loop_if_started(), threading.Event()
    assert loop is not None

    def close() -> None:
        for transport in list(loop._transports.values()):  # type: ignore[attr-defined]
            transport.abort()
        loop.call_soon(closed.set)  # behind what `abort` has put into the loop

    loop.call_soon_threadsafe(close)
    assert closed.wait(30), "the package's own thread does not answer"
