"""What answers prompts in Foundry's sessions: weights that the session itself has saved for it, and no others."""

from collections.abc import Sequence
from itertools import count
from typing import ClassVar

import msgspec

from runner.backends.foundry_sessions import wire
from runner.backends.foundry_sessions.api import Api
from runner.models.chat.image_tokens import images_among
from runner.record.samples import Sampling
from runner.remote.engine.service import Answering, ResultGone
from runner.training.engine import Sampled

MOST_ASKED = 3
"""How often a request is sent whose result the service has lost."""


class SessionAnswering(Answering):
    """Samplers of a session: kept checkpoints, or ones that end with it."""

    anywhere: ClassVar[bool] = False

    def __init__(self, api: Api) -> None:
        self._api, self._numbers = api, count(1)

    def sampler(self, session: str, path: str, base_model: str) -> str:
        """Return the id of what answers: a sampler that the session has kept, else its model as it is now."""
        if path.startswith(f"loom://{session}/sampler/"):
            return f"{session} {path.rpartition('/')[2]} {wire.SEQUENCE}"
        # A repeated request makes the same sampler once more; it ends with the session.
        number = next(self._numbers)
        body = {"seq_id": number, "sampling_session_seq_id": 0}
        self._asked(session, "checkpoint_sample", msgspec.json.encode(body))
        # The service does not report the name; its package makes it up in the same way.
        return f"{session} ss0_seq{number} {number}"

    def sample(self, sampler: str, prompt: Sequence[int], sampling: Sampling, ends: Sequence[int]) -> Sequence[Sampled]:
        """Return answers to a prompt."""
        session, checkpoint, number = sampler.split()
        parameters = {
            "max_tokens": sampling.max_new_tokens, "temperature": sampling.temperature, "top_p": sampling.top_p,
            "top_k": -1, "seed": sampling.seed,
        }  # fmt: skip
        # Left out where a model names none: an empty list may mean that nothing ends an answer.
        stop = {"stop_criteria": list(ends)} if ends else {}
        body = {
            "num_samples": sampling.per_prompt, "prompt": wire.model_input(prompt, images_among(prompt)),
            "sampling_params": parameters | stop,
            "topk_prompt_logprobs": 0, "seq_id": int(number), "prompt_logprobs": False,
        }  # fmt: skip
        content = self._asked(session, "sample", msgspec.json.encode(body), f"&checkpoint_id={checkpoint}")
        found = msgspec.json.decode(content, type=wire.Sampled).sequences
        return [_sampled(each, ends, sampling.max_new_tokens) for each in found]

    def _asked(self, session: str, route: str, body: bytes, query: str = "") -> bytes:
        """Carry out a request that changes no weights, and so may be sent again; return its result."""
        for attempt in range(MOST_ASKED):
            answer = self._api.ask("POST", f"/{session}/{route}", body, query)
            request = msgspec.json.decode(answer.content, type=wire.Accepted).request_id
            try:
                return self._api.result(f"{session}/request/{request}", lambda: True)
            except ResultGone:
                if attempt == MOST_ASKED - 1:
                    raise
        raise AssertionError("unreachable")


def _sampled(sequence: wire.SampledSequence, ends: Sequence[int], most: int) -> Sampled:
    """Return an answer with its end, which a service may leave out: it reports no reason for the end."""
    # Log-probabilities are optional in the package's types: what is missing the engine asks `forward` for.
    ids, logps = list(sequence.tokens), list(sequence.logprobs or [])
    ended = len(ids) < most or (bool(ids) and ids[-1] in ends)
    if ended and ends and ids[-1:] != list(ends)[:1] and (not ids or ids[-1] not in ends):
        ids.append(ends[0])
        logps.append(float("nan"))
    return Sampled(ids, logps, ended)
