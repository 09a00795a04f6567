"""What answers prompts at Tinker: a base model, or a sampler's weights."""

from collections.abc import Mapping, Sequence

from runner.backends.tinker import wire
from runner.backends.tinker.api import PROTOBUF, Api
from runner.models.chat.image_tokens import chunks, images_among
from runner.record.samples import Sampling
from runner.remote.engine.service import Answering
from runner.training.engine import Sampled


class TinkerAnswering(Answering):
    """Sampling sessions of the service."""

    def __init__(self, api: Api) -> None:
        self._api = api
        # Sampling requests are numbered for themselves, a sampler at a time.
        self._sampled: dict[str, int] = {}

    def sampler(self, session: str, path: str, base_model: str) -> str:
        """Return the id of something that answers: a checkpoint's weights, else a base model."""
        what = {"model_path": path} if path else {"base_model": base_model}
        number = sum(sampler.startswith(session) for sampler in self._sampled)
        body = {"type": "create_sampling_session", "session_id": session, "sampling_session_seq_id": number, **what}
        found = str(self._api.ask("create_sampling_session", body)["sampling_session_id"])
        self._sampled[found] = 0
        return found

    def sample(self, sampler: str, prompt: Sequence[int], sampling: Sampling, ends: Sequence[int]) -> Sequence[Sampled]:
        """Return answers to a prompt."""
        parameters = {
            "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": -1, "seed": sampling.seed,
        }  # fmt: skip
        # Left out where a model names none: an empty list may mean that nothing ends an answer.
        stop = {"stop": list(ends)} if ends else {}
        return wire.answers(
            self._asked(sampler, prompt, {"num_samples": sampling.per_prompt, "sampling_params": parameters | stop})
        )

    def logps(self, sampler: str, ids: Sequence[int]) -> Sequence[float]:
        """Return the log-probability of each token of a text but the first."""
        # As the package's `compute_logprobs` asks: they come with an answer, of which one token is the least.
        one = {"num_samples": 1, "sampling_params": {"max_tokens": 1}, "prompt_logprobs": True}
        return wire.prompt_logps(self._asked(sampler, ids, one), len(ids))

    def _asked(self, sampler: str, prompt: Sequence[int], more: Mapping[str, object]) -> bytes:
        # A number of its own for each: two requests under one would be one to a service that deduplicates.
        number = self._sampled[sampler]
        self._sampled[sampler] += 1
        given = {"chunks": chunks(prompt, images_among(prompt), "encoded_text")}
        body = {"type": "sample", "sampling_session_id": sampler, "seq_id": number, "prompt": given}
        return self._api.content(str(self._api.ask("asample", {**body, **more})["request_id"]), PROTOBUF)

    def base_model(self, sampler: str) -> str:
        """Return the base model of something that answers."""
        return str(self._api.get(f"samplers/{sampler}").json()["base_model"])
