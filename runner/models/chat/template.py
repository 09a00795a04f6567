"""A model's chat template, rendered as transformers renders it, without transformers."""

import json
import re
from collections.abc import Callable, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, NoReturn

import msgspec

from runner.data.json_value import Json
from runner.data.quality.vision import images_in
from runner.data.rows import Message, Tools
from runner.errors import DataError, ModelError
from runner.models import vision
from runner.models.chat.image_tokens import expanded
from runner.models.chat.tool_calls import NEEDS, Abilities, Chat, as_chat, needs, probed

if TYPE_CHECKING:
    from jinja2 import Template

SPECIAL_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token")
"""What templates may refer to by name."""
FILE, SETTINGS, FOLDER = "chat_template.jinja", "tokenizer_config.json", "additional_chat_templates"
DEFAULT, TOOL_USE = "default", "tool_use"
"""What transformers calls the template of rows without and with tools, where a model has several."""


class Marked(NamedTuple):
    """A rendered conversation, and where `{% generation %}` marks the assistant's words in it: from, up to."""

    text: str
    spans: list[tuple[int, int]]


class ChatTemplate:
    """The chat template of a model's folder: a file of its own, or a key of the tokenizer's settings.

    Images are written by it where the model `sees` them, each as often as it has tokens, and else refused.
    """

    def __init__(self, folder: Path, sees: bool = False) -> None:
        self.folder, self._sees = folder, sees

    def render(self, messages: Sequence[Message], answer_next: bool = False, tools: Tools | None = None) -> str:
        """Return the text the model sees; with `answer_next` it ends where the assistant begins to speak.

        Raises `DataError` if the template refuses the messages or leaves out tools, `ModelError` if there is none.
        """
        return self._marked(messages, answer_next, tools).text

    def marked(self, messages: Sequence[Message], tools: Tools | None = None) -> Marked:
        """Return the text with the spans that the template marks as the assistant's; raises what `render` raises."""
        return self._marked(messages, False, tools)

    def _marked(self, messages: Sequence[Message], answer_next: bool, tools: Tools | None) -> Marked:
        from jinja2.exceptions import TemplateError

        images = images_in(messages)
        if images and not self._sees:
            raise DataError(
                f"{self.folder.name}: a prompt holds an image, which a model here does not see; take it out, or ask a "
                "hosted model that sees."
            )
        template = self._template(bool(tools))
        can = self._abilities(messages, tools, template)
        chat = as_chat(messages, can.objects)
        try:
            # `or None`: templates would announce an empty list of tools.
            found = template.render(chat, answer_next, tools or None)
        except (TemplateError, TypeError, ValueError) as error:
            roles = ", ".join(message.role for message in messages)
            raise DataError(
                f"{self.folder.name}: the model's chat template refuses a row with the turns {roles} ({error}); "
                "change or remove such rows, or choose another model."
            ) from None
        # Of texts without any, too: a placeholder in somebody's words would be an image to the model.
        processor = self.processor
        if processor is None and images:
            processor = vision.find(self.folder)  # raises, and says why it is not known
        return found if processor is None else Marked(*expanded(found.text, found.spans, images, processor))

    @cached_property
    def processor(self) -> vision.ImageProcessor | None:
        """What the model makes of images; None where it is not to see any, or has none that is known."""
        try:
            return vision.find(self.folder) if self._sees else None
        except ModelError:
            return None

    def _abilities(self, messages: Sequence[Message], tools: Tools | None, template: "Compiled") -> Abilities:
        """Return what a template writes of tools. Raises `DataError` where that is less than a row has."""
        wanted = needs(messages, tools)
        if not wanted:
            return Abilities()  # most rows, for which the template is not tried
        can = template.abilities
        if lacks := [NEEDS[each] for each in wanted if not getattr(can, each)]:
            raise DataError(
                f"{self.folder.name}/{template.name}: the model's chat template leaves out {' and '.join(lacks)}, "
                "so that the model would not see them; choose a model that was trained for tools, give a template that "
                "writes them (model.source=template:FILE+SOURCE), or take such rows out."
            )
        return can

    @property
    def digest(self) -> str:
        """The sha256 of the template for rows without tools, in hexadecimal."""
        return self._template(False).digest

    @property
    def name(self) -> str:
        """Where the template for rows without tools is: a file of the model's folder."""
        return self._template(False).name

    @cached_property
    def source(self) -> str:
        """The template for rows without tools as it is written. Raises `ModelError` if there is none."""
        return self._template(False).source

    @cached_property
    def other_line(self) -> int | None:
        """The first line where the template's file is another than the settings' key; None where there are not two."""
        own = self._settings.get("chat_template")
        path = self.folder / FILE
        if not isinstance(own, str) or not path.exists():
            return None
        one, other = (each.rstrip().splitlines() for each in (path.read_text("utf-8"), own))
        if one == other:
            return None
        pairs = enumerate(zip(one, other, strict=False), 1)
        # Else one is the beginning of the other.
        return next((number for number, (a, b) in pairs if a != b), min(len(one), len(other)))

    def _template(self, for_tools: bool) -> "Compiled":
        found = self._named
        # As transformers chooses (tokenization_utils_base.get_chat_template).
        name = TOOL_USE if for_tools and TOOL_USE in found else DEFAULT
        if name not in found:
            raise ModelError(
                f"{self.folder}: the model has no chat template; choose an instruction-tuned model, "
                "or put the template into chat_template.jinja there."
            )
        return found[name]

    @cached_property
    def _named(self) -> "dict[str, Compiled]":
        """The templates by name."""
        own = self._settings.get("chat_template")
        sources: dict[str, tuple[str, str]] = {}
        if isinstance(own, str):
            sources[DEFAULT] = SETTINGS, own
        elif isinstance(own, list):  # older models with several: [{"name": …, "template": …}]
            sources = {each.name: (SETTINGS, each.template) for each in msgspec.convert(own, list[_Named])}
        # transformers writes files now. Where there is a key, too, the files count, as they do there.
        for path in sorted((self.folder / FOLDER).glob("*.jinja")):
            sources[path.stem] = f"{FOLDER}/{path.name}", path.read_text("utf-8")
        if (self.folder / FILE).exists():
            sources[DEFAULT] = FILE, (self.folder / FILE).read_text("utf-8")
        # A template that adds a bos_token that is missing gets an empty text.
        special = {key: _text(self._settings.get(key)) for key in SPECIAL_TOKENS}
        return {name: Compiled(file, source, special) for name, (file, source) in sources.items()}

    @cached_property
    def _settings(self) -> "dict[str, Json]":
        path = self.folder / SETTINGS
        settings: dict[str, Json] = json.loads(path.read_text("utf-8")) if path.exists() else {}
        return settings


class _Named(msgspec.Struct):
    name: str
    template: str


class Compiled:
    """One template: its file's name, its source, and the special tokens that it may name."""

    def __init__(self, name: str, source: str, special: dict[str, str]) -> None:
        self.name, self.source, self._special = name, source, special
        self._spans: list[tuple[int, int]] = []
        self._written = 0

    def render(self, chat: Chat, answer_next: bool, tools: Tools | None) -> Marked:
        """Return the text and its marks. Raises jinja2's `TemplateError`, `TypeError` or `ValueError`."""
        given = {"messages": chat, "add_generation_prompt": answer_next, "tools": tools, "documents": None}
        if not self.has_marks:
            return Marked(self._template.render(**given, **self._special), [])
        self._spans, self._written = [], 0
        parts: list[str] = []
        # Piece by piece, as a mark's place is the length of what was written before.
        for part in self._template.generate(**given, **self._special):
            parts.append(part)
            self._written += len(part)
        return Marked("".join(parts), self._spans)

    @cached_property
    def abilities(self) -> Abilities:
        """What the template writes of tools, found by trying."""
        return probed(lambda chat, tools: self.render(chat, False, tools).text)

    @cached_property
    def digest(self) -> str:
        """sha256 of the source, in hexadecimal."""
        return sha256(self.source.encode()).hexdigest()

    @cached_property
    def has_marks(self) -> bool:
        """Whether there is a `{% generation %}`."""
        return re.search(r"\{%-?\s*generation\s*-?%\}", self.source) is not None

    @cached_property
    def _template(self) -> "Template":
        return _compiled(self.source, self._note)

    def _note(self, text: str) -> str:
        self._spans.append((self._written, self._written + len(text)))
        return text


def _text(token: object) -> str:
    """Return a special token's text: a string, or in older files an object with `content`."""
    return str(token.get("content", "")) if isinstance(token, dict) else str(token or "")


def _compiled(source: str, note: Callable[[str], str]) -> "Template":
    """Compile a chat template in the environment that transformers gives it; `note` hears what it marks."""
    from datetime import datetime

    from jinja2.exceptions import TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.nodes import CallBlock, Node
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    class Generation(Extension):
        """`{% generation %}…{% endgeneration %}` marks the assistant's text."""

        tags = {"generation"}  # noqa: RUF012 (jinja2 declares it so)

        def parse(self, parser: Parser) -> Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return CallBlock(self.call_method("_pass"), [], [], body).set_lineno(line)

        def _pass(self, caller: Callable[[], object]) -> str:
            return note(str(caller()))

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
