"""What is done at the service outside of a run's steps: what a run left is removed, its checkpoints are copied."""

from collections.abc import Iterator, Sequence

import msgspec
from openai import NotFoundError

from runner.backends import Removal
from runner.backends.foundry.connect import Service, service
from runner.backends.foundry.deployment import Deployer
from runner.backends.foundry.keys import Foundry
from runner.errors import RequestError
from runner.hosted.connection import now
from runner.hosted.files import delete
from runner.hosted.jobs import ENDED, ServiceJobs, listed
from runner.record.events import Created
from runner.record.journal import RunState

COPY_HEADER = {"aoai-copy-ft-checkpoints": "preview"}
"""Source: https://learn.microsoft.com/azure/foundry/openai/how-to/fine-tuning#copy-a-model-preview"""


class Copy(msgspec.Struct, rename={"destination": "destinationResourceId"}):
    """What is read of the state of a copy; the documentation shows no answer, so that nothing in it is relied on."""

    status: str = "asked for"
    destination: str | None = None


class FoundryJobs(ServiceJobs):
    """The jobs of a project, whose checkpoints can be copied to another resource."""

    def __init__(self, service: Service) -> None:
        super().__init__(service)
        self.project = service

    def copy(self, job: str, checkpoint: str, resource: str, region: str) -> str:
        """Have a checkpoint copied to a resource, unless it is being or has been; return the state of the copy.

        It keeps its name there. Raises `RequestError` or `AccessError` with the service's words where it refuses.
        """
        path = f"/fine_tuning/jobs/{job}/checkpoints/{checkpoint}/copy"
        body = {"destinationResourceId": resource, "region": region}
        what = f"copying {checkpoint} to {region}"

        def look() -> Copy | None:
            try:
                found = self.project.openai.get(path, cast_to=object, options={"headers": COPY_HEADER})
            except NotFoundError:
                return None
            copy = msgspec.convert(found, Copy)
            # One to another resource is none of this one.
            return copy if copy.destination in (None, resource) else None

        def ask() -> Copy:
            sent = self.project.openai.post(path, cast_to=object, body=body, options={"headers": COPY_HEADER})
            return msgspec.convert(sent, Copy)

        found = now(self.project.ask(what, look))
        return (found or now(self.project.create(what, ask, lambda: self.project.ask(what, look)))).status


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
