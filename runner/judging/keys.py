"""Keys of the judge: where it is, how it is asked, what it costs."""

from dataclasses import dataclass, field

from runner.hosted.credentials import CredentialName
from runner.request.types import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass(frozen=True, kw_only=True)
class JudgeKeys:
    """Keys under `evaluation.judge`: the endpoint that graders ask; not part of what a judgement means."""

    url: str | None = None
    """Address of an OpenAI-compatible API, ending in /v1; by default OPENAI_BASE_URL, else OpenAI's own."""
    key_variable: str | None = "OPENAI_API_KEY"
    """Name of the environment variable that holds the API key; null where the endpoint asks for none."""
    credential: CredentialName | None = None
    """For a deployment of Foundry or Azure OpenAI without keys: Azure's credential, in place of `key_variable`."""
    model_names: dict[str, str] = field(default_factory=dict)
    """What a grader's `model` is called at the endpoint, by its name in the grader: an own deployment's name, say."""
    concurrency: PositiveInt = 4
    """The most questions under way at a time."""
    input_price: NonNegativeFloat | None = None
    """Dollars for a million tokens of questions; null where not known."""
    output_price: NonNegativeFloat | None = None
    """Dollars for a million tokens of answers; null where not known."""
    timeout: PositiveFloat = 300.0
    """Seconds for one judgement, repeated requests and pauses among them."""
