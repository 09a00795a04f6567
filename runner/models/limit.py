"""The limit on the tokens of a row, for backends that cut rows themselves."""

from collections.abc import Sequence
from functools import partial

from runner import models
from runner.data import problems
from runner.data.quality.vision import Vision, images_of
from runner.data.rows import BadRow, canonical, holds_images, uses_tools
from runner.data.survey import TokenLimit
from runner.errors import DataError
from runner.models.chat.learned_check import LearnedCheck, of_template
from runner.models.chat.tokenizer import ChatTokenizer


def template_of(source: str) -> str | None:
    """Return where a model's chat template is, with its sha256; None where the model is not here.

    What is there decides the result, as do the weights: `path:` has it in the model's digest, other sources a version.
    """
    folder = models.cached(source)
    if folder is None:
        return None
    template = ChatTokenizer(models.tokenizer_folder(folder)).template
    return f"{template.name} ({template.digest[:12]})"


def refuse_prompts(source: str, prompts: str | Sequence[str] | None, vision: Vision | None = None) -> None:
    """Raise `DataError` for own prompts with images that the model does not see, or tools that its template leaves out.

    It says file and line. Without `vision` no images are seen.
    """
    folder = models.cached(source) if prompts else None
    if folder is None:
        return
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder), sees=vision is not None)
    for problem, place in problems.read(prompts or ()):
        line = canonical(problem)
        # Others are written by any template, and there may be many.
        if uses_tools(line) or holds_images(line):
            try:
                if vision and images_of(problem):
                    list(vision.look(problem))  # what is odd is of no interest here, and what is refused is raised
                tokenizer.render(problem.prompt, answer_next=True, tools=problem.tools)
            except BadRow as bad:
                raise DataError(f"{place}: {bad}.") from None
            except DataError as error:
                raise DataError(f"{place}: {error}") from None


def limit_of(source: str, max_length: int, sees: bool = False) -> TokenLimit | None:
    """Return `backend.max_length` as a limit that counts by a model's tokenizer, None where that is not here.

    `sees` says whether the model is to learn from images, too.
    """
    folder = models.cached(source)
    if folder is None:
        return None
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder), sees)
    rows, prompts = (partial(count, at_most=max_length) for count in (tokenizer.counts, tokenizer.prompt_counts))
    return TokenLimit(
        max_length, rows, prompts, key="backend.max_length", check=LearnedCheck(tokenizer, max_length),
        findings=tuple(of_template(tokenizer)),
    )  # fmt: skip
