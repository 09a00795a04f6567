"""The models of a run whose job has ended, deployed or not; what is not can be put up for the time of an evaluation."""

import time
from collections.abc import Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import msgspec

from runner import models
from runner.backends import Respondent
from runner.backends.foundry import deployment, endpoint
from runner.backends.foundry.catalogue import catalogue
from runner.backends.foundry.connect import Service, service
from runner.backends.foundry.deployed_steps import Deployed
from runner.backends.foundry.keys import Foundry
from runner.backends.foundry.steps import Followed
from runner.data.rows import Prompt
from runner.errors import ModelError
from runner.hosted import generate
from runner.models import hosted_model
from runner.plan import Run
from runner.record import layout
from runner.record.events import Event, Wait
from runner.record.journal import Journal, RunState
from runner.record.samples import Reply, Sampling

ASKED = "delete_after_eval"
"""The value of `backend.deploy` that has something deployed for a while."""


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model of a run: what it is called at the service, from which base, at which step if it is a checkpoint."""

    run: Run
    state: RunState
    name: str
    base: str
    step: int | None = None

    @property
    def deployment(self) -> str:
        """What a deployment of it is called."""
        return deployment.name_of(self.run.plan.id, str(self.state.results["create"]["job"]), self.step)


@dataclass(frozen=True)
class UndeployedModel:
    """A tuned model or a checkpoint that no deployment answers for."""

    model: Model

    @property
    def identity(self) -> str:
        """Where it is, and its name."""
        return f"{self.model.state.results['upload']['endpoint']} {self.model.name}"

    @property
    def missing(self) -> str:
        """Say that it is not deployed, with the two ways to have it deployed."""
        which = "its model" if self.model.step is None else f"its checkpoint at step {self.model.step}"
        keep = "" if self.model.step is not None else "give the run's command again with backend.deploy=keep, or "
        return (
            f"{self.model.run.folder}: {which} is not deployed; {keep}let python -m runner.evaluate deploy it for its "
            f"time with backend.deploy={ASKED}."
        )

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Raise `ModelError`."""
        raise ModelError(self.missing)

    def close(self) -> None:
        """Nothing is held."""

    def for_evaluation(self, settings: Foundry) -> Respondent:
        """Return it as it is deployed when it is first asked, and removed when it is closed.

        Raises `ModelError` where `backend.deploy` does not ask for that, `RequestError` where it cannot have the SKU.
        """
        if settings.deploy != ASKED:
            raise ModelError(self.missing)
        endpoint.stay_where_it_began(settings, self.model.state)
        catalogue(settings.models).demand_sku(self.model.base, settings.deployment.sku)
        return OnDemand(self.model, settings)


@dataclass(frozen=True)
class UndeployedBase:
    """The base model of a run, of which the run itself has no deployment; others may."""

    base: str
    missing: str

    @property
    def identity(self) -> str:
        """Its name."""
        return self.base

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Raise `ModelError`."""
        raise ModelError(self.missing)

    def close(self) -> None:
        """Nothing is held."""

    def for_evaluation(self, settings: Foundry) -> Respondent:
        """Return a deployment of it that is there; raises `ModelError` where there is none."""
        return deployment.respondent(settings, "", self.base)


class OnDemand:
    """A model that is deployed once it is asked and removed once it is closed, both in the journal of its run.

    So `python -m runner.clean RUN` removes what a killed process left, and so does the same evaluation at its end.
    """

    def __init__(self, model: Model, settings: Foundry) -> None:
        self.model, self.settings = model, settings
        self._up = False
        _ = self.service.control_plane  # raises for a missing variable, before anything is asked

    @cached_property
    def service(self) -> Service:
        """The project."""
        return service(self.settings)

    @property
    def identity(self) -> str:
        """Where it is, and its name: not that of a deployment, which is another one the next time."""
        return f"{self.service.endpoint} {self.model.name}"

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Yield the answers to each prompt."""
        name, wanted = self.model.deployment, self.settings.deployment
        if prompts and not self._up:
            publisher = deployment.format_of(self.settings, self.model.base)
            deployer = deployment.Deployer(self.service, name, publisher)
            mine = ("deployment", name) in self._journal.state.created
            # Before: a process that is stopped while it waits has something to remove.
            self._up = True
            self._noted(deployer.ensure(self.model.name, wanted.sku, wanted.capacity, mine))
        return generate.Deployed(self.service, name).replies(prompts, sampling)

    def close(self) -> None:
        """Remove the deployment, if this evaluation or an earlier one that was killed has made it."""
        name = self.model.deployment
        if ("deployment", name) in self._journal.state.created and self._temporary:
            self._noted(deployment.Deployer(self.service, name).remove())
        self._up = False

    @property
    def _temporary(self) -> bool:
        """Whether the run itself has not deployed its model to keep it."""
        return self.model.step is not None or self.model.state.latest("deploy", "undeploy") != "deploy"

    @cached_property
    def _journal(self) -> Journal:
        return Journal(self.model.run.folder / layout.JOURNAL)

    def _noted(self, work: Generator[Event, None, None]) -> None:
        """Carry out some work, its events in the journal."""
        for event in work:
            if isinstance(event, Wait):
                time.sleep(event.seconds)
            else:
                self._journal.add(event)


def models_of(run: Run, state: RunState) -> dict[str, Respondent]:
    """Return the base model, the tuned one and the checkpoints by their step."""
    settings, base = Foundry.of(run.request), models.hosted_name(run.plan.model.source) or ""
    tuned = Model(run=run, state=state, name=msgspec.convert(state.results["follow"], Followed)["model"], base=base)
    found: dict[str, Respondent] = {}
    if state.latest("deploy", "undeploy") == "deploy":
        there, deployed = service(settings), msgspec.convert(state.results["deploy"], Deployed)
        names: Mapping[str, str | None] = {"base": deployed["base"], "tuned": deployed["deployment"]}
        found |= {which: generate.Deployed(there, name) for which, name in names.items() if name}
    else:
        missing = UndeployedModel(tuned)
        found |= {"base": UndeployedBase(base, missing.missing), "tuned": missing}
    for step, name in hosted_model.checkpoints(state.results).items():
        found[str(step)] = UndeployedModel(replace(tuned, name=name, step=step))
    return found
