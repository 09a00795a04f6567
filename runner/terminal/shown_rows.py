"""The first rows of a run as the model sees them: `show=N`."""

from itertools import islice

from rich.text import Text

from runner import backends, models
from runner.models.chat.shown_row import Fate, Piece, ShownRow, shown_row
from runner.models.chat.tokenizer import ChatTokenizer
from runner.plan import Run
from runner.terminal import console

STYLES: dict[Fate, str] = {"read": "dim", "learned": "bold green", "cut": "red strike"}
BRACKETS: dict[Fate, tuple[str, str]] = {"read": ("", ""), "learned": ("⟦", "⟧"), "cut": ("✂", "")}
"""What says the same where there is no colour; few texts have these."""


def show_rows(run: Run, count: int) -> None:
    """Print the first rows of the training data, what is learned in colour, or in brackets where there is none.

    Raises `DataError` for a row that cannot be learned.
    """
    # Never fetched for this: a plan uses no network.
    folder = models.cached(run.plan.model.source)
    limit = backends.load(run.plan.backend).limit(run.request)
    if folder is None or limit is None:
        console.say(
            f"note: show={count}: rows are shown where the model's tokenizer is on this machine; that of "
            f"{run.plan.model.source.partition('@')[0]} is not"
        )
        return
    tokenizer = ChatTokenizer(models.tokenizer_folder(folder), sees=True)
    legend = _body([Piece("learned", "learned"), Piece(", ", "read"), Piece("only read", "read")])
    console.terminal.print(Text("Rows as the model sees them: ", style="bold") + legend, soft_wrap=True)
    for number, row in enumerate(islice(run.rows("train"), count), 1):
        _show(number, shown_row(tokenizer, row, limit.max_tokens))


def _show(number: int, row: ShownRow) -> None:
    console.say()
    title = f"train, row {number}: {row.tokens:,} tokens, {row.learned:,} of them learned"
    console.terminal.print(Text(title, style="bold"), soft_wrap=True)
    console.terminal.print(_body([Piece(row.prompt, "read")]), soft_wrap=True, end="")
    for index, answer in enumerate(row.answers):
        if len(row.answers) > 1:
            console.say()
            console.say(f"── answer {index + 1} of {len(row.answers)}")
        console.terminal.print(_body(answer), soft_wrap=True, end="")
    console.say()


def _body(pieces: list[Piece]) -> Text:
    colour = console.terminal.color_system is not None and not console.terminal.no_color
    # As Text: brackets of a row are no markup.
    found = Text()
    for text, fate in pieces:
        before, after = ("", "") if colour else BRACKETS[fate]
        found.append(before + _visible(text) + after, STYLES[fate] if colour else "")
    return found


def _visible(text: str) -> str:
    """Return a text without what a terminal would obey: an escape such as \\x1b for each control character."""
    return "".join(each if each.isprintable() or each in "\n\t" else repr(each)[1:-1] for each in text)
