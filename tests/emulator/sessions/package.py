"""The package `azure-ai-finetuningsessions` as tests use it: its clients with tokens of the emulator, its values."""

from collections.abc import Sequence
from typing import Any

from azure.ai.finetuningsessions import FineTuningSessionClient, aio
from azure.ai.finetuningsessions.models import (
    AdamParams,
    Datum,
    LoRAConfig,
    LossFnInputs,
    ModelInput,
    ModelInputChunk,
    TensorData,
)
from azure.core.credentials import AccessToken

from runner.training.engine import Adam
from tests.emulator import identity
from tests.emulator.routes import PROJECT

LORA = LoRAConfig(rank=4, alpha=32.0, seed=7)


class Credential:
    """A credential that the emulator gives tokens to."""

    def __init__(self, url: str) -> None:
        self._url = url

    def get_token(self, *scopes: str, **_: Any) -> AccessToken:
        """Return a new token."""
        import httpx2

        resource = scopes[0].removesuffix("/.default")
        headers = {"X-IDENTITY-HEADER": identity.HEADER}
        found = httpx2.get(f"{self._url}/msi/token", params={"resource": resource}, headers=headers).json()
        return AccessToken(found["access_token"], int(found["expires_on"]))


class AsynchronousCredential:
    """The same for the asynchronous client."""

    def __init__(self, url: str) -> None:
        self._own = Credential(url)

    async def get_token(self, *scopes: str, **options: Any) -> AccessToken:
        """Return a new token."""
        return self._own.get_token(*scopes, **options)

    async def close(self) -> None:
        """Hold nothing."""

    async def __aenter__(self) -> "AsynchronousCredential":
        return self

    async def __aexit__(self, *error: object) -> None:
        return


def client(url: str) -> FineTuningSessionClient:
    """Return the synchronous client."""
    return FineTuningSessionClient(url + PROJECT, Credential(url), allow_insecure_http=True)


def asynchronous_client(url: str) -> Any:
    """Return the asynchronous client."""
    return aio.FineTuningSessionClient(url + PROJECT, AsynchronousCredential(url), allow_insecure_http=True)


def datum(ids: Sequence[int], weights: Sequence[float] | None = None) -> Datum:
    """Return a sequence whose tokens are predicted, with a weight for each but the first."""
    given = [1.0] * (len(ids) - 1) if weights is None else list(weights)
    inputs = LossFnInputs(
        target_tokens=TensorData(data=[float(token) for token in ids[1:]]), weights=TensorData(data=given)
    )
    return Datum(model_input=ModelInput(chunks=[ModelInputChunk(tokens=list(ids[:-1]))]), loss_fn_inputs=inputs)


def adam(numbers: Adam) -> AdamParams:
    """Return the numbers of a step; the service clips nothing."""
    return AdamParams(
        learning_rate=numbers.learning_rate, beta1=numbers.beta1, beta2=numbers.beta2, eps=numbers.eps,
        weight_decay=numbers.weight_decay,
    )  # fmt: skip
