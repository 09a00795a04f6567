"""Foundry's sessions as the rest of the runner sees them: models, credentials, what they lack and guarantee."""

import os
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from runner import models
from runner.backends import Lines, Respondent
from runner.backends.foundry.endpoint import find_endpoint
from runner.backends.foundry_sessions.keys import FoundrySessions
from runner.cost import Tokens
from runner.data.survey import Survey
from runner.errors import RequestError
from runner.hosted.credentials import PROJECT_SCOPE, token_source
from runner.models import remote_model
from runner.models.sources.run import find
from runner.models.sources.session import SOURCE
from runner.plan import Proposal, Run
from runner.remote import vision
from runner.remote.backend import RemoteBackend
from runner.remote.money import rates
from runner.remote.target import Limits, Target, ends, origin_of
from runner.remote.vision import ImageLimits
from runner.request.keys import Request
from runner.training.engine import Abilities, problems

if TYPE_CHECKING:
    from runner.backends.foundry_sessions.service import FoundrySessions as Service

PRICES = Path(__file__).with_name("prices.yaml")
# Clipping is Adam's caller's elsewhere; here optim_step takes five numbers, and a norm is none of them.
ABILITIES = Abilities(lost_answer="probe", exact_resume=False, clips=False, likeliest=False, lacks={})
TOKENS_PER_REQUEST = 160_000
"""The package cuts at 5 MB, and counts 30 bytes for a token with its target and its weight."""


class FoundrySessionsBackend(RemoteBackend[FoundrySessions]):
    """LoRA in fine-tuning sessions of Microsoft Foundry."""

    name = "foundry_sessions"
    settings = FoundrySessions
    grades = True
    # MAX_IMAGES_PER_EXAMPLE, MAX_IMAGE_BYTES and formats of the package's models, 1.0.0b1.
    vision = staticmethod(partial(vision.of, name, ImageLimits(("jpeg", "png", "webp"), 64, 10_000_000)))
    repeats = (
        "a lost answer is found by its request's id; else a probe shows whether an optimizer step was taken, and the "
        "count of steps is checked after each"
    )

    def check(self, request: Request, survey: Survey) -> None:
        """Raise `RequestError` for a model or a key that sessions do not take, `AccessError` without an endpoint."""
        settings = FoundrySessions.of(request)
        # Raises for a model of another place.
        rates.refuse_unpriced(request.max_price, _origin(request.model.source).base_model, settings.prices, PRICES)
        if wrong := problems(ABILITIES, settings.max_grad_norm):
            raise RequestError("\n".join(f"backend.{each}" for each in wrong))
        # A plan can be made on a machine that has neither the packages nor an endpoint.
        if request.mode == "run":
            if not find_spec("httpx2") or not find_spec("azure") or not find_spec("azure.identity"):
                raise RequestError(
                    "backend=foundry_sessions: needs further packages; pip install 'runner[local,foundry]'."
                )
            find_endpoint(settings.azure)
        super().check(request, survey)

    def forecast(self, proposal: Proposal, tokens: Tokens | None) -> Lines:
        """Return what a run takes, and what differs from the same request elsewhere."""
        # What a default of ours means elsewhere and not here is reported: the same YAML gives other numbers.
        lines = [
            *super().forecast(proposal, tokens),
            ("gradients", "as long as they are: the service clips none, where backend=local clips them at 1"),
            ("result", "a name at the service, which gives no weights away"),
        ]
        # from_checkpoint has no switch for the optimizer's state.
        if _origin(proposal.run.plan.model.source).state:
            lines.append(
                ("optimizer", "continues with the moments of the run that it starts from, as the service keeps them")
            )
        return lines

    def service(self, settings: FoundrySessions) -> "Service":
        """Return the sessions of the project that settings or the environment name."""
        from runner.backends.foundry_sessions.service import FoundrySessions as Service

        token = token_source(settings.azure.credential, "backend.azure.credential", PROJECT_SCOPE)
        endpoint = find_endpoint(settings.azure, os.environ)
        return Service(endpoint, token, settings.runtime.patience, settings.training_type)

    def target(self, run: Run) -> Target:
        """Return the service, the model there and the settings of a run."""
        settings = FoundrySessions.of(run.request)
        origin = _origin(run.plan.model.source)
        tokenizer = partial(_tokenizer, run.plan.model.source)
        return Target(
            name=self.name,
            reference=_reference,
            kept="checkpoints stay until runner.clean: the service deletes a session's all at once",
            settings=settings,
            origin=origin,
            lora=asdict(settings.lora),
            seed=run.plan.seed,
            max_grad_norm=None,
            limits=Limits(
                ABILITIES, None, origin.base_model, lambda: ends(tokenizer()), TOKENS_PER_REQUEST, complete_logps=False
            ),
            shipped_prices=PRICES,
            service=partial(self.service, settings),
            tokenizer_folder=tokenizer,
            exports=False,
        )

    def respondent(self, reference: str, settings: FoundrySessions) -> Respondent | None:
        """Return a base model, by `session:ORG/NAME`, or a checkpoint, by `session:session_ID/NAME`.

        A tokenizer from elsewhere follows after an @, as in `model.source`.
        """
        scheme, _, rest = reference.partition(":")
        if scheme != SOURCE.scheme:
            return None
        from runner.remote.respondent import RemoteRespondent

        made = partial(self.service, settings)
        path, _, source = rest.partition("@")
        if not path.removeprefix("loom://").startswith("session_"):
            return RemoteRespondent(made, partial(SOURCE.fetch_tokenizer, rest), "", SOURCE.split(rest)[0])

        def tokenizer() -> Path:
            if source:
                return models.tokenizer_folder(models.fetch(source))
            return SOURCE.fetch_tokenizer(made().base_model_of(path))

        return RemoteRespondent(made, tokenizer, path, "")


_origin = partial(origin_of, SOURCE, FoundrySessionsBackend.name, "Foundry's sessions train their own models only")


def _reference(path: str) -> str:
    """Return a checkpoint's path as commands name it: the short form that the service's package takes, too."""
    session, _, name = path.removeprefix("loom://").split("/")
    return f"{SOURCE.scheme}:{session}/{name}"


def _tokenizer(model: str) -> Path:
    """Return a folder with the tokenizer of a model, fetched if need be; of a run's result that of its base model."""
    scheme, _, rest = model.partition(":")
    if scheme == "run":
        found = remote_model.read(find(rest))
        assert found is not None  # `_origin` has read it
        rest = found.source.partition(":")[2]
    return SOURCE.fetch_tokenizer(rest)


BACKEND = FoundrySessionsBackend()
