"""`python -m tests.key_table`: write docs/keys.md from the code, where each key is declared once."""

from collections.abc import Iterator
from dataclasses import MISSING, fields, is_dataclass
from pathlib import Path
from typing import get_type_hints

from runner import backends, methods
from runner.request import check, keys, schema

PAGE = Path(__file__).parent.parent / "docs" / "keys.md"
HEAD = """# Keys

Every key of a request, generated from the code by `python -m tests.key_table`. Set a key on the command line
(`dpo.beta=0.05`) or in YAML. `auto` is resolved when the plan is made; the plan prints the value and the reason.
Keys that do not go together are refused with a sentence each.
"""


def sections() -> dict[str, type]:
    """Return the dataclass of each section, by the prefix of its keys."""
    found: dict[str, type] = {"": keys.RootKeys}
    found |= {f"{name}.": owner for name, owner in keys.SECTIONS.items()}
    found |= {f"{name}.": methods.load(name).hyperparameters for name in methods.names()}
    return found | {f"{name}: backend.": backends.keys(name) for name in backends.names()}


def rows(prefix: str, owner: type) -> Iterator[str]:
    """Yield a Markdown row for each key of a dataclass, nested ones included."""
    meanings = schema.meanings(owner)
    hints = get_type_hints(owner, include_extras=True)
    for field in fields(owner):
        hint = hints[field.name]
        if is_dataclass(hint) and isinstance(hint, type):
            yield from rows(f"{prefix}{field.name}.", hint)
        else:
            value = field.default if field.default_factory is MISSING else field.default_factory()
            default = "must be given" if value == "???" else f"`{value}`"
            allowed = check.describe(hint).replace("|", "\\|")
            yield f"| `{prefix.rpartition(': ')[2]}{field.name}` | {default} | {allowed} | {meanings[field.name]} |"


def page() -> str:
    """Return the page as Markdown."""
    lines = [HEAD]
    for prefix, owner in sections().items():
        backend, _, _ = prefix.partition(": ")
        title = f"`backend`, with `backend={backend}`" if ": " in prefix else f"`{prefix[:-1]}`"
        lines += [
            f"## {title if prefix else 'At the root'}",
            "",
            "| key | default | allowed | meaning |",
            "|---|---|---|---|",
            *rows(prefix, owner),
            "",
        ]
    return "\n".join(lines).strip() + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
