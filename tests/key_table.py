"""`python -m tests.key_table`: write the README's table of keys from the code, where each key is declared once."""

import ast
import inspect
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

from runner import backends, methods
from runner.request import check, keys

README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- keys: made by python -m tests.key_table -->", "<!-- end of keys -->"


def sections() -> dict[str, type]:
    """Return the dataclass of each section, by the prefix of its keys."""
    found: dict[str, type] = {"": keys.RootKeys}
    found |= {f"{name}.": owner for name, owner in keys.SECTIONS.items()}
    found |= {f"{name}.": methods.load(name).hyperparameters for name in methods.names()}
    return found | {f"{name}: backend.": backends.load(name).settings for name in ("local", "foundry")}


def rows(prefix: str, owner: type) -> Iterator[str]:
    """Yield a Markdown row for each key of a dataclass, nested ones included."""
    meanings = docstrings(owner)
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from rows(f"{prefix}{field.name}.", hint)
        else:
            default = "must be given" if field.default == "???" else f"`{field.default}`"
            allowed = check.describe(hint).replace("|", "\\|")
            yield f"| `{prefix.rpartition(': ')[2]}{field.name}` | {default} | {allowed} | {meanings[field.name]} |"


def docstrings(owner: type) -> dict[str, str]:
    """Return the text that stands under each field of a dataclass, its parents' fields included."""
    bodies = [
        ast.parse(textwrap.dedent(inspect.getsource(each))).body[0].body  # type: ignore[attr-defined]
        for each in owner.__mro__
        if is_dataclass(each)
    ]
    return {
        node.target.id: " ".join(text.value.value.split())
        for body in bodies
        for node, text in pairwise(body)
        if isinstance(node, ast.AnnAssign) and isinstance(text, ast.Expr)
    }


def table() -> str:
    """Return all tables as Markdown."""
    lines = []
    for prefix, owner in sections().items():
        title = {"": "At the top", "local: backend.": "`backend` with `backend=local`"}.get(prefix)
        title = title or ("`backend` with `backend=foundry`" if "foundry" in prefix else f"`{prefix[:-1]}`")
        lines += [
            f"**{title}**",
            "",
            "| key | default | allowed | meaning |",
            "|---|---|---|---|",
            *rows(prefix, owner),
            "",
        ]
    return "\n".join(lines).strip()


def with_table(readme: str) -> str:
    """Return the README's text with the table put in."""
    head, _, rest = readme.partition(BEGIN)
    return f"{head}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}"


if __name__ == "__main__":
    README.write_text(with_table(README.read_text("utf-8")), "utf-8")
