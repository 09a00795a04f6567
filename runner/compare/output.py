"""Where a comparison goes: files in a folder, the terminal."""

from collections.abc import Sequence
from pathlib import Path

from runner.compare import verdict
from runner.compare.verdict import Comparison
from runner.record.files import write_json
from runner.terminal import console

SHOWN = 40
"""Lines of the terminal's table; the files have all."""


def write(found: Comparison, folder: Path) -> Sequence[Path]:
    """Write the comparison as JSON, Markdown, a page and a drawing; return the files."""
    from runner.compare import drawing, page
    from runner.compare.rows import side_by_side

    folder.mkdir(parents=True, exist_ok=True)
    figure = drawing.draw(found)
    files = [folder / f"comparison.{kind}" for kind in ("json", "md", "html", "png")]
    write_json(files[0], verdict.as_json(found))
    files[1].write_text(verdict.markdown(found), "utf-8")
    files[2].write_text(page.html(found, "".join(map(drawing.svg, drawing.parts(found))), side_by_side(found)), "utf-8")
    drawing.save(figure, files[3])
    return files


def show(found: Comparison, folder: Path | None) -> None:
    """Print the table, what follows from it, and where it is written."""
    head, rows = verdict.table(found)
    if len(rows) > SHOWN:
        rows = [*rows[:SHOWN], [f"… and {len(rows) - SHOWN} more", *[""] * (len(head) - 1)]]
    console.table(f"{found.verdict[:1].upper()}{found.verdict[1:]}.", head, rows, fold=False)
    for sentence in found.sentences:
        console.say(f"{sentence}.")
    if folder is not None:
        console.say(f"\nwritten to {folder}/comparison.html, .md, .json and .png")
