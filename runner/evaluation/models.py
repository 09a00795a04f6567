"""Any model that `python -m runner.evaluate` names, as something that answers.

RUN, RUN@base, RUN@STEP              a run's model, the one it was made from, a checkpoint
hf:ORG/NAME  path:FOLDER  models:/…  a model to load, as in `model.source`
deployment:NAME                      a deployment of the hosted project
tinker:NAME  tinker://…              a base model at Tinker, a sampler's weights there
session:NAME  session:session_…/…    a base model of Foundry's sessions, a checkpoint there
endpoint:URL#MODEL                   any OpenAI-compatible endpoint
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from runner import backends, models, planning
from runner.backends import Respondent, Undeployed
from runner.data.rows import Prompt
from runner.errors import AccessError, JudgeError, ModelError, ServiceError
from runner.graders import Json
from runner.hosted.prompts import chat_messages, chat_tools
from runner.judging.connection import Connection, find_url
from runner.judging.keys import JudgeKeys
from runner.record import run_folders
from runner.record.journal import read_state
from runner.record.samples import Reply, Sampling
from runner.request.keys import Request

ENDPOINT = "endpoint"


def find(name: str, request: Request, runs: Path) -> Respondent:
    """Return the model that a name means.

    Raises `ModelError` with what there is, where nothing has that name.
    """
    scheme, _, rest = name.partition(":")
    if scheme == ENDPOINT:
        return _endpoint(rest, request.evaluation.judge)
    run, _, which = name.partition("@")
    if scheme not in models.schemes() and scheme == name:
        return _of_run(run_folders.find(run, runs), which or "tuned", request)
    ours = request.backend.name
    # The request's own backend first: it has settings, while the others are asked with their defaults.
    for backend in sorted(backends.names(), key=lambda each: each != ours):
        loaded = backends.load(backend)
        found = loaded.respondent(name, request.backend if backend == ours else loaded.settings(name=backend))
        if found is not None:
            return found
    raise ModelError(f"{name}: no such model; allowed: a run, RUN@base, RUN@STEP, {ENDPOINT}:URL#MODEL, or a source.")


def _of_run(folder: Path, which: str, request: Request) -> Respondent:
    run = planning.load(folder)
    every = backends.of(run).respondents(run, read_state(folder))
    if which not in every:
        raise ModelError(f"{folder.name}@{which}: there is no such model of that run; allowed: {', '.join(every)}.")
    found = every[which]
    if not isinstance(found, Undeployed):
        return found
    if request.backend.name != run.plan.backend:
        raise ModelError(found.missing)
    return found.for_evaluation(request.backend)


def _endpoint(rest: str, keys: JudgeKeys) -> Respondent:
    url, _, model = rest.partition("#")
    if not url.startswith(("http://", "https://")) or not model:
        raise ModelError(f"{ENDPOINT}:{rest}: needs an address and a model's name, endpoint:https://HOST/v1#MODEL.")
    return Endpoint(replace(keys, url=url), model)


@dataclass(frozen=True)
class Endpoint:
    """A model behind an OpenAI-compatible endpoint, which is asked for chat completions.

    Source: https://platform.openai.com/docs/api-reference/chat/create
    """

    keys: JudgeKeys
    """Where it is and how it is asked: the same retries, limits and key as a judge's."""
    model: str

    @property
    def identity(self) -> str:
        """The address, and the model's name there."""
        return f"{self.keys.url} {self.model}"

    def close(self) -> None:
        """Nothing is held."""

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Yield the answers to each prompt, several of which are under way at a time.

        Raises `ServiceError` where an answer cannot be had, `AccessError` where the endpoint does not let us in.
        """
        with (
            closing(Connection(self.keys, os.environ)) as connection,
            ThreadPoolExecutor(self.keys.concurrency) as pool,
        ):

            def reply(prompt: Prompt, number: int) -> Reply:
                try:
                    with connection.slot() as until:
                        answer = connection.post(self._request(prompt, sampling, number), until)
                except JudgeError as error:
                    raise ServiceError(f"{ENDPOINT}:{self.keys.url}#{self.model}: {error}") from error
                said = answer.refusal or answer.text.strip()
                return Reply(said, answer.finish_reason != "length", answer.tool_calls)

            try:
                waiting = [
                    [pool.submit(reply, prompt, number) for number in range(sampling.per_prompt)] for prompt in prompts
                ]
                for futures in waiting:
                    yield [future.result() for future in futures]
            finally:
                pool.shutdown(cancel_futures=True)

    def harness_model(self) -> Any:
        """Return the model for lm-evaluation-harness, which asks it for chat completions by itself."""
        from lm_eval.models.openai_completions import LocalChatCompletion

        variable = self.keys.key_variable
        if variable is not None and not os.environ.get(variable):
            raise AccessError(
                f"{variable}: not set; put the endpoint's key into the environment or .env, or set "
                "evaluation.judge.key_variable=null where it asks for none."
            )
        # Never empty: without headers the harness would send OPENAI_API_KEY, whoever asks for it.
        header = {"Accept": "application/json"}
        header |= {"Authorization": f"Bearer {os.environ[variable]}"} if variable else {}
        return LocalChatCompletion(
            base_url=f"{find_url(self.keys)}/chat/completions", model=self.model, header=header,
            num_concurrent=self.keys.concurrency, timeout=int(self.keys.timeout),
        )  # fmt: skip

    def without_secrets(self, text: str) -> str:
        """Return the text without the endpoint's key."""
        secret = os.environ.get(self.keys.key_variable or "")
        return text.replace(secret, "[…]") if secret else text

    def _request(self, prompt: Prompt, sampling: Sampling, number: int) -> dict[str, Json]:
        # Another seed for each sample, else an endpoint that obeys it gives the same answer each time.
        seed = {"seed": sampling.seed + number} if sampling.temperature else {}
        return {
            "model": self.model, "messages": chat_messages(prompt.turns), **chat_tools(prompt),
            "max_completion_tokens": sampling.max_new_tokens, "temperature": sampling.temperature,
            "top_p": sampling.top_p, **seed,
        }  # fmt: skip
