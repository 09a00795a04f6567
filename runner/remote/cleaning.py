"""What a run left at a service is removed: its sessions, then its checkpoints; the adapter that was fetched stays.

Where the service deletes checkpoints with their session only, the first of them takes the others with it.
"""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from runner.backends import Removal
from runner.errors import RequestError
from runner.record import layout
from runner.record.events import Created
from runner.remote.engine.ledger import Closed, Ledger, Opening, read
from runner.remote.engine.opening import LABEL
from runner.remote.engine.service import Handle, Service
from runner.remote.engine.session import CHECKPOINT, SESSION

if TYPE_CHECKING:
    from runner.plan import Run


def remove(run: "Run", service: Service, leftovers: Sequence[Created]) -> Iterator[Removal]:
    """Remove what a run has created, one by one.

    Raises `RequestError` if the environment leads to another place than that where the run created it.
    """
    ledger = Ledger(run.folder / layout.LEDGER)
    leftovers = [*_late(run, service, leftovers), *leftovers]
    for each in leftovers:  # sessions come first: one that lives could make further checkpoints
        where = each.detail.get("endpoint", service.endpoint)
        if where != service.endpoint:
            raise RequestError(
                f"this run's session is at {where}, not at {service.endpoint}; set the variables that lead there."
            )
        if each.what == SESSION:
            service.close(each.id, "interrupted")
            ledger.add(Closed(each.id))
            # A process that was killed may have made one that the journal has not heard of.
            model = each.detail.get("model")
            unheard = service.checkpoints.of(Handle(each.id, str(model))) if model else ()
            for path in set(unheard) - {other.id for other in leftovers}:
                service.checkpoints.delete(path)
                yield Removal(Created(CHECKPOINT, path, {}))
        else:
            service.checkpoints.delete(each.id)
        yield Removal(each)
    service.disconnect()


def _late(run: "Run", service: Service, known: Sequence[Created]) -> Iterator[Created]:
    """Yield sessions that live and have a label of this run's: opened by a request that arrived after it was given up.

    Of another machine's run with the same plan they are not: each opening draws a label of its own.
    """
    labels = [line.label for line in read(run.folder / layout.LEDGER) if isinstance(line, Opening)]
    found = {session for label in labels for session in service.find({LABEL: label})}
    for session in sorted(found - {each.id for each in known}):
        yield Created(SESSION, session, {})
