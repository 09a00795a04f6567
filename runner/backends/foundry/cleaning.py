"""What a run left at the service is removed: deployments, then files that no live job uses."""

from collections.abc import Iterator, Sequence

from runner.backends import Removal
from runner.backends.foundry.connect import Service, service
from runner.backends.foundry.deployment import Deployer
from runner.backends.foundry.keys import Foundry
from runner.errors import RequestError
from runner.hosted.connection import now
from runner.hosted.files import delete
from runner.hosted.jobs import ENDED, listed
from runner.record.events import Created
from runner.record.journal import RunState


def remove(settings: Foundry, state: RunState, leftovers: Sequence[Created]) -> Iterator[Removal]:
    """Remove what a run has created, one by one.

    Raises `RequestError` if the environment leads to another place than that where the run created it.
    """
    there = service(settings)
    _demand_same_place(there, state)
    # Of any run, ours or not: a shared file stays as long as one job reads it.
    live = [job for job in now(listed(there)) if job.status not in ENDED]
    used = {file: job.id for job in live for file in (job.training_file, job.validation_file)}
    for each in leftovers:
        if each.what == "file" and each.id in used:
            yield Removal(each, used_by=used[each.id])
        elif each.what == "file":
            now(delete(there, each.id))
            # A job that exists has read its files: the upload need not be done again.
            yield Removal(each, undoes="" if "create" in state.results else "upload")
        else:
            now(Deployer(there, each.id).remove())
            yield Removal(each, undoes="deploy")


def _demand_same_place(there: Service, state: RunState) -> None:
    places = [(state.results.get("upload", {}).get("endpoint"), there.endpoint)]
    made = [each.detail.get("account") for each in state.created.values() if each.what == "deployment"]
    # A deployment's name alone may mean another one in another account.
    places += [(account, there.control_plane.name) for account in made]
    for was, now_at in places:
        if was and was != now_at:
            raise RequestError(f"this run's things are at {was}, not at {now_at}; set the variables that lead there.")
