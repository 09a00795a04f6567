"""Models at a service that answer prompts: a base model, or a sampler's weights."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from runner.data.rows import Prompt
from runner.models.chat.tokenizer import ChatTokenizer
from runner.record.samples import Reply, Sampling
from runner.remote.engine.heartbeat import Heartbeat
from runner.remote.target import ends
from runner.training.engine import Sampled

if TYPE_CHECKING:
    from runner.remote.engine.service import Service


class RemoteRespondent:
    """A model at a service, asked in a session of its own, which is opened when it is first asked."""

    def __init__(
        self, make_service: "Callable[[], Service]", tokenizer: Callable[[], Path], path: str, base_model: str
    ) -> None:
        self._make_service, self._find_tokenizer = make_service, tokenizer
        self._path, self._base_model = path, base_model
        self._heartbeat: Heartbeat | None = None

    @property
    def identity(self) -> str:
        """The path of the weights, or the base model's name."""
        return self._path or self._base_model

    def replies(self, prompts: Sequence[Prompt], sampling: Sampling) -> Iterator[Sequence[Reply]]:
        """Yield the answers to each prompt."""
        tokenizer = ChatTokenizer(self._tokenizer, sees=True)
        stops = ends(self._tokenizer)
        # All before the first is paid for: a prompt that the template refuses stops none in the middle.
        for prompt in [tokenizer.encode_prompt(each) for each in prompts]:
            yield replies(tokenizer, self._service.answering.sample(self._sampler, prompt, sampling, stops))

    def close(self) -> None:
        """End the session."""
        if self._heartbeat is not None:
            self._heartbeat.stop()
            self._service.close(self._heartbeat.session, "success")
            self._service.disconnect()
        self._heartbeat = None
        self.__dict__.pop("_sampler", None)

    @cached_property
    def _tokenizer(self) -> Path:
        return self._find_tokenizer()

    @cached_property
    def _service(self) -> "Service":
        return self._make_service()

    @cached_property
    def _sampler(self) -> str:
        # Without labels of a plan: `runner.jobs` shows it as nobody's run, which it is.
        session = self._service.open_for_answers({}, self._path, self._base_model)
        self._heartbeat = Heartbeat(self._service, session)
        return self._service.answering.sampler(session, self._path, self._base_model)


def replies(tokenizer: ChatTokenizer, answers: Sequence[Sampled]) -> list[Reply]:
    """Return sampled answers as text."""
    return [Reply(tokenizer.decode(each.ids).strip(), each.ended) for each in answers]
