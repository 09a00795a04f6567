"""A model's chat template, rendered as transformers renders it, without transformers."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import msgspec

from runner.data.rows import Message
from runner.errors import DataError, ModelError

if TYPE_CHECKING:
    from jinja2 import Template

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
"""What templates may refer to by name."""


class ChatTemplate:
    """The chat template of a model's folder: a file of its own, or a key of the tokenizer's settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def render(self, messages: Sequence[Message], answer_next: bool = False) -> str:
        """Return the text the model sees; with `answer_next` it ends where the assistant begins to speak.

        Raises `DataError` if the template refuses the messages, `ModelError` if there is none.
        """
        chat = [msgspec.to_builtins(message) for message in messages]
        # As transformers passes them: a template that adds a bos_token that is missing gets an empty text.
        special = {key: _text(self._settings.get(key)) for key in SPECIAL_TOKENS}
        from jinja2.exceptions import TemplateError

        try:
            return self._template.render(messages=chat, add_generation_prompt=answer_next, tools=None, **special)
        except TemplateError as error:
            roles = ", ".join(message.role for message in messages)
            raise DataError(
                f"{self.folder.name}: the model's chat template refuses a row with the turns {roles} ({error}); "
                "change or remove such rows, or choose another model."
            ) from None

    @cached_property
    def source(self) -> str:
        """The template as it is written. Raises `ModelError` if there is none."""
        # transformers writes a file of its own now; older models have a key. Where there are both, the file
        # counts, as it does there.
        path = self.folder / "chat_template.jinja"
        source = path.read_text("utf-8") if path.exists() else self._settings.get("chat_template")
        if not isinstance(source, str):
            raise ModelError(
                f"{self.folder}: the model has no chat template; choose an instruction-tuned model, "
                "or put the template into chat_template.jinja there."
            )
        return source

    @cached_property
    def _template(self) -> "Template":
        return _compiled(self.source)

    @cached_property
    def _settings(self) -> dict[str, object]:
        path = self.folder / "tokenizer_config.json"
        settings: dict[str, object] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return settings


def _text(token: object) -> str:
    """Return a special token's text: a string, or in older files an object with `content`."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _compiled(source: str) -> "Template":
    """Compile a chat template in the environment that transformers gives it."""
    from datetime import datetime

    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}` marks the assistant's text; here it only passes through."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

        def _pass(self, caller: Callable[[], object]) -> str:
            return str(caller())

    def refuse(message: str) -> NoReturn:
        raise TemplateError(message)

    # A template comes with a model, so it is somebody else's code: it may not change or call what it is
    # given.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    # jinja2's own escapes <, > and & for web pages; models have learned from text without that.
    environment.filters["tojson"] = lambda value, **options: json.dumps(value, ensure_ascii=False, **options)
    environment.globals["raise_exception"] = refuse
    # Llama 3.2's template writes today's date into the system turn.
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment.from_string(source)
