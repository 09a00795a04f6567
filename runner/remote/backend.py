"""What backends of remote engines have in common, as the rest of the runner sees them: checks, price, steps."""

from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from functools import cache, partial
from typing import TYPE_CHECKING, ClassVar, TypeVar

from runner import backends, distributed, methods
from runner.backends import Backend, Jobs, Lines, Removal, Resolved, Respondent, Result, Step, step_of
from runner.cost import Cost, Tokens
from runner.data.survey import Survey, TokenLimit
from runner.errors import RequestError
from runner.evaluation import on_the_way
from runner.evaluation.on_the_way import grader_of, refuse_judging
from runner.graders import Json
from runner.methods import AnyMethod, Hyperparameters
from runner.models.limit import limit_of, refuse_prompts
from runner.plan import Proposal, Run
from runner.record import samples
from runner.record.events import Created
from runner.record.journal import RunState
from runner.remote import rewarded
from runner.remote.keys import RemoteKeys
from runner.remote.money import price
from runner.remote.target import Target, num_steps
from runner.request.keys import Request
from runner.request.types import resolve_auto
from runner.rollouts import planned

if TYPE_CHECKING:
    from runner.remote.engine.service import Service
    from runner.remote.steps import RemoteSteps

Settings = TypeVar("Settings", bound=RemoteKeys)
ELSEWHERE = ("runtime", "prices", "url", "azure")
"""Settings that decide nothing about the result: how the work is done, what it costs, where the service is."""
REMOVED = ("session", "checkpoint")
"""What `runner.clean` removes, in this order."""


class RemoteBackend(Backend[Settings]):
    """A backend whose training is ours, and whose engine is a service's."""

    stops_at_price = True
    asks_base: ClassVar[bool] = False
    """Whether a session can ask the base model how likely an answer is, once its own has learned."""
    repeats: ClassVar[str]
    """What the service guarantees where an answer is lost, as a sentence for the plan."""

    @abstractmethod
    def target(self, run: Run) -> Target:
        """Return the service, the model there and the settings of a run."""

    @abstractmethod
    def service(self, settings: Settings) -> "Service":
        """Return the service that settings lead to. Raises `AccessError` where there is no key."""

    def check(self, request: Request, survey: Survey) -> None:
        """Raise `RequestError` for what the engine does not have."""
        # Each rank would open a session of its own, and pay for it.
        if distributed.this_rank().world_size > 1:
            raise RequestError(
                f"torchrun: backend={self.name} computes nothing here; give the same command without it."
            )
        # Services take language models and LoRA on their layers; a head is neither.
        if methods.load(request.method).reward_model:
            raise RequestError(
                f"method: got {request.method}, which trains a head of its own; backend={self.name} trains adapters of "
                "language models; use backend=local."
            )
        if methods.load(request.method).graded:
            rewarded.check(request, self.asks_base)
        # Each of them would be a best, a patience or a grader that nothing is measured for.
        if "validation" not in survey.splits:
            refuse_judging(request.evaluation)
        grader_of(request)
        refuse_prompts(request.model.source, request.evaluation.prompts, backends.vision(request))

    def limit(self, request: Request) -> TokenLimit | None:
        """Return `max_length`, where the model's tokenizer is here."""
        return limit_of(request.model.source, self.settings.of(request).max_length, sees=True)

    def resolve(
        self, settings: Settings, method: AnyMethod, hyperparameters: Hyperparameters, num_rows: int
    ) -> Resolved[Settings]:
        """Replace each `auto` as the local backend does."""
        hyperparameters, why = method.resolve(hyperparameters, num_rows)
        settings, why_settings = resolve_auto(settings, {"learning_rate": (2e-4, "usual for LoRA")})
        reasons = {f"{method.name}.{key}": reason for key, reason in why.items()}
        return Resolved(
            settings, hyperparameters, reasons | {f"backend.{key}": reason for key, reason in why_settings.items()}
        )

    def identity(self, settings: Settings) -> dict[str, Json]:
        """Return all settings but where the service is, its prices, and how the work is done."""
        return {key: value for key, value in asdict(settings).items() if key not in ELSEWHERE}

    def evaluation(self, request: Request) -> dict[str, Json]:
        """Return what decides which weights are kept and what is measured on the way."""
        return on_the_way.identity(request)

    def cost(self, run: Run, tokens: Tokens | None) -> Cost:
        """Return the most that the whole run costs by the table of prices; None where it has none."""
        target = self.target(run)
        usage, rates = price.estimate(run, target), target.rates
        if usage is None or rates is None:
            return Cost(None, None)
        judge = planned.cost(run, num_steps(run)).dollars if methods.load(run.plan.method).graded else 0.0
        return Cost(None, None if judge is None else usage.dollars(rates)[1] + judge)

    def forecast(self, proposal: Proposal, tokens: Tokens | None) -> Lines:
        """Return the tokens by meter, the price, and what happens to a lost answer and at `max_price`."""
        run = proposal.run
        answers = planned.forecast(run, num_steps(run)) if methods.load(run.plan.method).graded else []
        return [*answers, *price.forecast(run, self.target(run), self.repeats)]

    def advice(self, run: Run, results: Mapping[str, Result]) -> Lines:
        """Return what to do with the result."""
        name = run.handle
        return [
            (f"python -m runner.chat {name}", "talk to it at the service, next to the model it came from"),
            (f"python -m runner backend={self.name} model.source=run:{name} …", "train it further"),
            (f"python -m runner.clean {name}", "list, and after asking remove, what this run left at the service"),
        ]

    def steps(self, run: Run, state: RunState) -> Sequence[Step]:
        """Return the steps; torch and the service's package are imported when the first of them begins."""

        @cache
        def work() -> "RemoteSteps":
            if methods.load(run.plan.method).graded:
                from runner.remote.rewarded.steps import RewardedRemoteSteps

                return RewardedRemoteSteps(run, state.results, self.target(run))
            from runner.remote.steps import RemoteSteps

            return RemoteSteps(run, state.results, self.target(run))

        sampling = samples.key(run.request)
        names = ("prepare", "train", "save", "evaluate")
        # Other samples open a session once more, which is to be ended again.
        return [
            *(step_of(work, name) for name in names),
            *(step_of(work, each, sampling) for each in ("sample", "unload")),
        ]

    def respondents(self, run: Run, state: RunState) -> Mapping[str, Respondent]:
        """Return the base and the tuned model at the service. Raises `ModelError` if there is no tuned one yet."""
        from runner.remote import result
        from runner.remote.respondent import RemoteRespondent

        target, found = self.target(run), result.demand(run)
        made = partial(RemoteRespondent, target.service, target.tokenizer_folder)
        return {
            "base": made(target.origin.sampler, target.origin.base_model),
            "tuned": made(found.sampler, target.origin.base_model),
        }

    def jobs(self, settings: Settings) -> Jobs:
        """Return the sessions of the service."""
        from runner.remote.sessions import Sessions

        return Sessions(self.service(settings))

    def leftovers(self, state: RunState) -> Sequence[Created]:
        """Return the sessions, then the checkpoints, that a run has created."""
        found = [each for each in state.created.values() if each.what in REMOVED]
        return sorted(found, key=lambda each: REMOVED.index(each.what))

    def remove(self, run: Run, state: RunState, leftovers: Sequence[Created]) -> Iterable[Removal]:
        """End sessions and delete checkpoints at the service."""
        from runner.remote.cleaning import remove

        return remove(run, self.target(run).service(), leftovers)
