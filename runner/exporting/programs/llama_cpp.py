"""llama.cpp by its own server, as `runner.serve` starts it: its Jinja, its tokenizer, its arithmetic.

The log-probability of a token that is given, and not sampled: a bias makes the server say it, and reports the
log-probability that the weights alone give it (`post_sampling_probs` is off).
Source: https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from collections.abc import Sequence
from importlib.metadata import version

import msgspec

from runner.errors import ServiceError
from runner.exporting.by_engine import Asked, ByEngine
from runner.exporting.evidence import Evidence, Ids, Questions, Scored
from runner.exporting.programs import FORCED
from runner.hosted.prompts import chat_messages
from runner.serving import client
from runner.serving.client import Json

WHOLE_VOCABULARY = 1_000_000
"""More tokens than any model has; the server says all that there are."""


class _Rendered(msgspec.Struct):
    prompt: str


class _Tokens(msgspec.Struct):
    tokens: Ids


class _Token(msgspec.Struct):
    id: int
    logprob: float
    top_logprobs: "list[_Token]" = []


class _Said(msgspec.Struct):
    content: str
    tokens_predicted: int
    stop_type: str
    completion_probabilities: list[_Token] = []


class _Props(msgspec.Struct):
    eos_token: str


class _Server(Asked):
    """Its own routes, next to those of OpenAI's."""

    def evidence(self, asked: Questions) -> Evidence:
        """Return what it says."""
        prompts = [self._ids(chat_messages(each), True) for each in asked.prompts]
        # Of the file's own key; that it also knows other ends by their text is what llama.cpp does with any file.
        props = client.decoded(client.get(f"{self.url}/props"), self.url, _Props)
        return Evidence(
            prompts=prompts,
            conversations=[self._ids(chat_messages(each.messages), False) for each in asked.scored],
            logps=[self._logps(each) for each in asked.scored],
            replies=[self._say(each, asked.max_new_tokens).content.strip() for each in prompts],
            ends=self._tokens(props.eos_token),
            stops=[self._stops(prompts[0], end) for end in asked.ends],
        )

    def _ids(self, messages: Sequence[Json], answer_next: bool) -> Ids:
        body: dict[str, Json] = {"messages": messages, "add_generation_prompt": answer_next}
        return self._tokens(self.post("apply-template", body, _Rendered).prompt)

    def _tokens(self, text: str) -> Ids:
        # As its chat completions tokenise what the template has written.
        return self.post("tokenize", {"content": text, "add_special": True, "parse_special": True}, _Tokens).tokens

    def _say(self, prompt: Ids, limit: int, **more: Json) -> _Said:
        # Greedy by its first sampler: a temperature of 0 alone leaves the other samplers at their defaults.
        body: dict[str, Json] = {
            "prompt": prompt,
            "n_predict": limit,
            "temperature": 0,
            "samplers": ["top_k"],
            "top_k": 1,
        }
        return self.post("completion", body | more, _Said)

    def _logps(self, row: Scored) -> list[float]:
        found = []
        for place, token in enumerate(row.answer):
            # What came before is in its cache: one token is computed at a time.
            said = self._say([*row.prompt, *row.answer[:place]], 1, n_probs=1, logit_bias=[[token, FORCED]])
            if not said.completion_probabilities:
                found.append(self._begun([*row.prompt, *row.answer[:place]], token))
                continue
            (each,) = said.completion_probabilities
            if each.id != token:
                raise ServiceError(f"{self.url}: said token {each.id} where it was made to say {token}")
            found.append(each.logprob)
        return found

    def _begun(self, before: Ids, token: int) -> float:
        """Return the log-probability of a token that begins a character, of an emoji say, and does not end it.

        The server says nothing of such a token when it is the last one. It is found among those likely in place
        of a whole character.
        """
        forced = [[self._tokens("a")[-1], FORCED]]
        for likely in (1000, WHOLE_VOCABULARY):  # of which an answer has megabytes
            said = self._say(before, 1, n_probs=likely, logit_bias=forced)
            for each in said.completion_probabilities[0].top_logprobs:
                if each.id == token:
                    return each.logprob
        raise ServiceError(f"{self.url}: does not say how likely token {token} is")

    def _stops(self, prompt: Ids, end: int) -> bool:
        # Three tokens: one that does not stop has to have the room to continue.
        said = self._say(prompt, 3, logit_bias=[[end, FORCED]])
        return said.stop_type == "eos" and said.tokens_predicted == 1


class LlamaCpp(ByEngine):
    """llama.cpp, of the package xllamacpp."""

    name = "llama_cpp"
    asked = _Server

    def version(self) -> str:
        """Return the package's version, which names the build of llama.cpp."""
        return f"xllamacpp {version('xllamacpp')}"


PROGRAM = LlamaCpp
