"""The steps of a deployed model: it is deployed, held-out prompts are answered, and if asked it is removed again."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypedDict

import msgspec

from runner import models
from runner.backends import Events
from runner.backends.foundry import deployment
from runner.backends.foundry.connect import service
from runner.backends.foundry.keys import Foundry
from runner.backends.foundry.steps import Followed
from runner.data.rows import Row
from runner.errors import RunnerError
from runner.hosted import generate
from runner.hosted.connection import Asking
from runner.record import samples
from runner.record.graded import Asked
from runner.record.samples import Replies

if TYPE_CHECKING:
    from runner.plan import Run
    from runner.record.journal import RunState


class Deployed(TypedDict):
    """The deployments of the tuned and of the base model; None or empty where there is none of the base model."""

    deployment: str
    base: str | None


class DeployedSteps:
    """What a run does with its model at the service, once the job has ended."""

    def __init__(self, run: "Run", state: "RunState") -> None:
        self.run, self.state, self.done = run, state, state.results
        self.settings = Foundry.of(run.request)
        self.service = service(self.settings)
        self.base = models.hosted_name(run.plan.model.source) or ""

    @property
    def job_id(self) -> str:
        """The job's id at the service."""
        return str(self.done["create"]["job"])

    def deploy(self) -> Events:
        """Deploy the model, and find a deployment of the base model to compare it with."""
        wanted = self.settings.deployment
        self._rows()  # data that is gone is reported before anything costs by the hour
        # By the journal: a deployment that somebody else has made is used, but never changed or removed.
        mine = ("deployment", self.deployment_name) in self.state.created
        publisher = deployment.format_of(self.settings, self.base)
        deployer = deployment.Deployer(self.service, self.deployment_name, publisher)
        yield from deployer.ensure(
            msgspec.convert(self.done["follow"], Followed)["model"], wanted.sku, wanted.capacity, mine
        )
        base = wanted.base
        if base == "auto":
            base = yield from deployment.find_base(self.service, self.base)
        return {"deployment": self.deployment_name, "base": base}

    def sample(self) -> Events:
        """Answer held-out prompts with the base and the tuned model; a failure names the deployment that exists."""
        try:
            return (yield from self._sample())
        except RunnerError as error:
            if ("deployment", self.deployment_name) not in self.state.created:
                raise
            # Of the same kind, for the exit code; what costs by the hour has to be said, whatever went wrong.
            raise type(error)(
                f"{error} The deployment {self.deployment_name} exists and may cost by the hour: the same command "
                f"continues, python -m runner.clean {self.run.handle} removes it."
            ) from error

    def _sample(self) -> Events:
        rows = self._rows()
        if not rows:
            return {}
        deployed = msgspec.convert(self.done["deploy"], Deployed)
        after = yield from self._answers(deployed["deployment"], rows)
        before = (yield from self._answers(deployed["base"], rows)) if deployed["base"] else None
        return (yield from samples.keep(self.run.folder, rows, before, after))

    def undeploy(self) -> Events:
        """Remove the deployment; the model stays, and can be deployed again."""
        if ("deployment", self.deployment_name) in self.state.created:
            yield from deployment.Deployer(self.service, self.deployment_name).remove()
        return {}

    @property
    def deployment_name(self) -> str:
        """What the deployment is called."""
        name = self.settings.deployment.name
        return name if name != "auto" else deployment.name_of(self.run.plan.id, self.job_id)

    def _answers(self, name: str, rows: Sequence[Asked]) -> Asking[Replies]:
        prompts = [row.given for row in rows]
        return (yield from generate.answers(self.service, name, prompts, samples.sampling(self.run.request)))

    def _rows(self) -> list[Asked]:
        """Return the rows that can be asked; all held-out ones are read, so that they are compared with the plan's."""
        if samples.most(self.run.request) == 0:
            return []
        # To the last row, though few are asked for: only at the end is the fingerprint known.
        held_out = list(self.run.held_out())
        return samples.rows_to_ask(self.run.request, held_out, _can_be_asked)


def _can_be_asked(row: Row) -> bool:
    """Say whether the responses API takes a prompt."""
    # It takes no answer of a tool without the call it belongs to, and no turn that says nothing.
    called = {call.get("id") for turn in row.question for call in turn.tool_calls or ()}
    return all(
        turn.tool_call_id in called if turn.role == "tool" else turn.parts or turn.tool_calls for turn in row.question
    )
