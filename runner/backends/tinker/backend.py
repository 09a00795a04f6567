"""The Tinker backend as the rest of the runner sees it: its models, its key, its guarantee."""

import os
from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from runner import models
from runner.backends import Respondent
from runner.backends.tinker.keys import TinkerKeys
from runner.data.survey import Survey
from runner.errors import AccessError, RequestError
from runner.models.sources.tinker import SOURCE
from runner.plan import Run
from runner.remote import vision
from runner.remote.backend import RemoteBackend
from runner.remote.money import rates
from runner.remote.target import Limits, Target, ends, origin_of
from runner.remote.vision import ImageLimits
from runner.request.keys import Request
from runner.training.engine import Abilities

if TYPE_CHECKING:
    from runner.remote.engine.service import Service

URL = "https://tinker.thinkingmachines.dev/services/tinker-prod"
KEY, WHERE = "TINKER_API_KEY", "TINKER_BASE_URL"
DAY = 86_400
PRICES = Path(__file__).with_name("prices.yaml")
ABILITIES = Abilities(
    lost_answer="repeat",
    exact_resume=False,
    clips=True,
    likeliest=False,
    lacks={},
)
"""How a batch is computed there decides the last bits; whether a number is known again is seen on opening a session."""


class TinkerBackend(RemoteBackend[TinkerKeys]):
    """LoRA by the Tinker API."""

    name = "tinker"
    settings = TinkerKeys
    grades = True
    asks_base = True
    # The formats of ImageChunk in the package, 0.38; of number and size neither it nor the documentation says anything.
    vision = staticmethod(partial(vision.of, name, ImageLimits(("jpeg", "png"))))
    repeats = "a lost answer is asked for again under the same number, where the service knows it"

    def check(self, request: Request, survey: Survey) -> None:
        """Raise `RequestError` for a model, a rank or rows that Tinker does not take, `AccessError` without a key."""
        settings = TinkerKeys.of(request)
        # Raises for a model of another place.
        rates.refuse_unpriced(request.max_price, _origin(request.model.source).base_model, settings.prices, PRICES)
        rank = settings.lora.rank
        # https://tinker-docs.thinkingmachines.ai: LoRA ranks are powers of two
        if rank & (rank - 1):
            raise RequestError(f"backend.lora.rank: got {rank}; Tinker takes powers of two; allowed: 8, 16, 32, ….")
        if not (settings.lora.train_attn or settings.lora.train_mlp or settings.lora.train_unembed):
            raise RequestError(
                "backend.lora: no layers are left to train; set one of train_attn and train_mlp to true."
            )
        # A plan can be made on a machine that has neither the packages nor a key.
        if request.mode == "run":
            if not find_spec("tinker") or not find_spec("httpx2"):
                raise RequestError("backend=tinker: needs further packages; pip install 'runner[local,tinker]'.")
            _key()
        super().check(request, survey)

    def service(self, settings: TinkerKeys) -> "Service":
        """Return the service at the address that settings or the environment give."""
        from runner.backends.tinker.service import Tinker

        return Tinker(_url(settings), _key(), settings.runtime.patience)

    def target(self, run: Run) -> Target:
        """Return the service, the model there and the settings of a run."""
        settings = TinkerKeys.of(run.request)
        origin = _origin(run.plan.model.source)
        tokenizer = partial(_tokenizer, run.plan.model.source)
        ttl = settings.runtime.checkpoint_days * DAY
        return Target(
            name=self.name,
            reference=str,
            kept=f"checkpoints but the result after {settings.runtime.checkpoint_days} days",
            settings=settings,
            origin=origin,
            lora=asdict(settings.lora),
            seed=run.plan.seed,
            max_grad_norm=settings.max_grad_norm,
            limits=Limits(ABILITIES, ttl, origin.base_model, lambda: ends(tokenizer())),
            shipped_prices=PRICES,
            service=partial(self.service, settings),
            tokenizer_folder=tokenizer,
        )

    def respondent(self, reference: str, settings: TinkerKeys) -> Respondent | None:
        """Return a base model, by `tinker:ORG/NAME`, or a sampler's weights, by `tinker://MODEL/sampler_weights/NAME`."""
        scheme, _, rest = reference.partition(":")
        if scheme != SOURCE.scheme:
            return None
        from runner.backends.tinker.service import Tinker
        from runner.remote.respondent import RemoteRespondent

        made = partial(self.service, settings)
        # tinker://… is a path at the service, anything else a base model.
        if not rest.startswith("//"):
            name, _ = SOURCE.split(rest)
            return RemoteRespondent(made, partial(SOURCE.fetch_tokenizer, rest), "", name)

        def tokenizer() -> Path:
            service = Tinker(_url(settings), _key(), settings.runtime.patience)
            return SOURCE.fetch_tokenizer(service.base_model_of(reference))

        return RemoteRespondent(made, tokenizer, reference, "")


_origin = partial(origin_of, SOURCE, TinkerBackend.name, "Tinker trains its own models only")


def _tokenizer(model: str) -> Path:
    """Return a folder with the tokenizer of a model, fetched if need be."""
    scheme, _, rest = model.partition(":")
    return SOURCE.fetch_tokenizer(rest) if scheme == SOURCE.scheme else models.tokenizer_folder(models.fetch(model))


def _url(settings: TinkerKeys, environment: Mapping[str, str] = os.environ) -> str:
    # The package `tinker` reads the same variable, so that both reach the same server.
    return (settings.url or environment.get(WHERE) or URL).rstrip("/")


def _key(environment: Mapping[str, str] = os.environ) -> str:
    """Return the key. Raises `AccessError` where there is none, or something else is in its place."""
    key = environment.get(KEY, "")
    # As the package asks for it: a key of another service is refused before it is sent anywhere.
    if not key.startswith(("tml-", "eyJ")):
        found = "not set" if not key else "does not begin with tml-"
        raise AccessError(
            f"{KEY}: {found}; make a key on https://tinker-console.thinkingmachines.ai and put it into the environment "
            "or .env."
        )
    return key


BACKEND = TinkerBackend()
