"""`python -m tests.house`: the code base in numbers, with its limits; exit code 1 where one is passed.

Counted are Python files under `runner/` and `hydra_plugins/`; words are read in tests and examples, too. A comment is a
line with `#`; a docstring is none.
"""

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median, quantiles

from rich.console import Console
from rich.table import Table

from runner.record import layout

ROOT = Path(__file__).parents[1]
FUNCTION_LINES, CLASS_LINES, CLASS_METHODS, MODULE_LINES = 60, 150, 15, 300
COMMENTS_PER_100, ANY_LINES, FILES_PER_FOLDER, TOP_MODULES = 4.0, 80, 12, 6
COMMANDS = {
    "__init__", "__main__", "api", "evaluate", "chat", "clean", "jobs", "promote", "pyfunc", "watch", "export", "serve",
    "schema",
}  # fmt: skip
"""What is typed or called by name at the top of `runner/`; the rest there is limited to `TOP_MODULES`."""

PRIVATE = {
    "JobPlan": "Plan", "Top": "RootKeys", "Several": "TorchGroup", "World": "Group", "Progressed": "RunState",
    "Known": "PlanCache", "Unwritten": "MemoryJournal", "Entrant": "Variant", "entrant": "variant",
    "entrants": "variants", "told_apart": "significant", "APART": "IGNORED", "outlook": "forecast", "held": "cache",
    "remembered": "disk_cache", "shares": "schedule", "adopt": "patches", "fused": "kernels", "logps_py": "scorer",
    "measured_py": "metrics", "tally": "statistics", "texts_py": "text_rules", "repeats": "duplicates",
    "goal": "objective", "judge": "evaluate, classify", "demand_price": "confirm_price",
}  # fmt: skip
"""Names that the field does not use, and what took their place; as names of modules, classes and functions."""
DIALECT = {
    "told": "reported, printed", "tells": "reports, shows", "beside": "next to, besides, compared with",
    "stands": "is, exists", "anew": "again", "nought": "zero", "goes on": "continues", "go on": "continue",
    "going on": "continuing", "unlike": "different", "mend": "fix", "mends": "fixes", "mended": "fixed",
    "comes to": "results in, equals", "dear": "expensive", "dearer": "more expensive", "hangs on": "depends on",
}  # fmt: skip
"""Words that plain technical English does not use, and what to say; as whole words of any text or name."""
DIALECT_ALLOWED = {
    "runner.graders.pairwise": "stands",  # part of the question to a judge: another one would be paid for again
    "runner.backends.foundry.backend": "beside",  # part of a step's key in journals: by another one it is done again
}
"""Modules in which a word stays, and why."""
DIALECT_LATER = ()  # fmt: skip
"""Modules and packages whose words are not looked at yet."""
# Letters of abbreviations stand for something. An underscore ends a word, so that names are found by their parts.
_DIALECT = re.compile(rf"(?<![a-z])(?!stands for)({'|'.join(DIALECT).replace(' ', '[ _]')})(?![a-z])", re.IGNORECASE)


@dataclass(frozen=True)
class Source:
    """A module: its dotted name, its text and its tree."""

    name: str
    text: str
    tree: ast.Module

    @property
    def lines(self) -> int:
        """How many lines it has."""
        return self.text.count("\n")

    def nodes(self, *kinds: type[ast.AST]) -> list[ast.AST]:
        """Return the nodes of some kinds."""
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]


def sources(*folders: str) -> list[Source]:
    """Return every module of some folders."""
    found = []
    for path in sorted(path for folder in folders for path in ROOT.glob(f"{folder}/**/*.py")):
        name = ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        text = path.read_text("utf-8")
        found.append(Source(name, text, ast.parse(text)))
    return found


def span(node: ast.AST) -> int:
    """Return how many lines a definition takes, its docstring included."""
    return (node.end_lineno or 0) - node.lineno + 1  # type: ignore[attr-defined]


def spelled(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line and name of each file of a run's folder that a module spells out; `runner.record.layout` has them.

    A folder's name (`model`) is a key of JSON, too, so it counts only where it is joined to a path.
    """
    constants = [value for name, value in vars(layout).items() if name.isupper()]
    names = {name for each in constants for name in (each.values() if isinstance(each, dict) else [each])}
    joined = {node.right for node in source.nodes(ast.BinOp) if isinstance(node.op, ast.Div)}  # type: ignore[attr-defined]
    for node in source.nodes(ast.Constant):
        assert isinstance(node, ast.Constant)
        name = node.value.rpartition("/")[2] if isinstance(node.value, str) else ""
        # `.lock` ends the name of any lock file.
        if name in names and (node in joined or (Path(name).suffix and name != layout.LOCK)):
            yield node.lineno, name


def dialect(source: Source) -> Iterator[tuple[int, str]]:
    """Yield line and word of each use of the dialect in a module."""
    for number, line in enumerate(source.text.splitlines(), 1):
        words = [found.lower().replace("_", " ") for found in _DIALECT.findall(line)]
        yield from ((number, word) for word in words if word != DIALECT_ALLOWED.get(source.name))


def comments(source: Source) -> int:
    """Return the number of lines with a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(source.text).readline)
    return len({token.start[0] for token in tokens if token.type == tokenize.COMMENT})


def any_lines(source: Source) -> int:
    """Return the number of lines on which `Any` is used as a type; its import is not."""
    names = [node.lineno for node in source.nodes(ast.Name) if node.id == "Any"]  # type: ignore[attr-defined]
    return len(set(names))


def imports(source: Source, known: Mapping[str, Source]) -> Iterator[str]:
    """Yield the modules of ours that a module imports, wherever in it, for types only, too."""
    for node in source.nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            wanted = [alias.name for alias in node.names]
        else:
            wanted = [f"{node.module}.{alias.name}" for alias in node.names]
        for name in wanted:
            while name and name not in known:
                name = name.rpartition(".")[0]
            if name and name != source.name:
                yield name


def circles(graph: Mapping[str, set[str]]) -> list[list[str]]:
    """Return the groups of modules that import each other (strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in graph[name]:
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                found.append(sorted(group))

    for name in graph:
        if name not in index:
            visit(name)
    return found


def figures(found: list[Source]) -> dict[str, str]:
    """Return the numbers of some modules."""
    functions = [span(node) for each in found for node in each.nodes(ast.FunctionDef, ast.AsyncFunctionDef)] or [0]
    lines = sum(each.lines for each in found)
    sizes = [each.lines for each in found]
    tenth = quantiles(functions, n=10)[-1] if len(functions) > 1 else functions[0]
    return {
        "files": str(len(found)),
        "lines": f"{lines:,}",
        "file: median, max": f"{median(sizes):.0f}, {max(sizes)}",
        "function: median, p90, max": f"{median(functions):.0f}, {tenth:.0f}, {max(functions)}",
        "comments per 100 lines": f"{100 * sum(map(comments, found)) / max(1, lines):.1f}",
        "lines with Any": str(sum(map(any_lines, found))),
    }


def faults(found: list[Source]) -> Iterator[str]:
    """Yield a line for each limit that is passed."""
    known = {each.name: each for each in found}
    for each in found:
        if each.lines > MODULE_LINES:
            yield f"{each.name}: {each.lines} lines, over {MODULE_LINES}"
        for node in each.nodes(ast.FunctionDef, ast.AsyncFunctionDef):
            if span(node) > FUNCTION_LINES:
                yield f"{each.name}.{node.name}: {span(node)} lines, over {FUNCTION_LINES}"  # type: ignore[attr-defined]
        for node in each.nodes(ast.ClassDef):
            assert isinstance(node, ast.ClassDef)
            methods = [item for item in node.body if isinstance(item, ast.FunctionDef)]
            if span(node) > CLASS_LINES or len(methods) > CLASS_METHODS:
                yield f"{each.name}.{node.name}: {span(node)} lines and {len(methods)} methods"
        if each.name != layout.__name__:
            yield from (f"{each.name}:{line}: {name} is in runner.record.layout" for line, name in spelled(each))
        names = [node.name for node in each.nodes(ast.ClassDef, ast.FunctionDef)]  # type: ignore[attr-defined]
        for name in {each.name.rpartition(".")[2], *names} & PRIVATE.keys():
            yield f"{each.name}: {name} is called {PRIVATE[name]}"
    for each in [*found, *(test for test in sources("tests", "examples") if test.name != "tests.house")]:
        yield from (f"{each.name}:{line}: '{word}': say {DIALECT[word]}" for line, word in dialect(each))
    total = sum(each.lines for each in found)
    if (share := 100 * sum(map(comments, found)) / total) < COMMENTS_PER_100:
        yield f"comments: {share:.1f} per 100 lines, fewer than {COMMENTS_PER_100}"
    if (count := sum(map(any_lines, found))) >= ANY_LINES:
        yield f"Any: on {count} lines, {ANY_LINES} or more"
    yield from (f"circle: {' ⇄ '.join(group)}" for group in circles({e.name: set(imports(e, known)) for e in found}))
    yield from crowded()


def crowded() -> Iterator[str]:
    """Yield a line for each folder with too many files, and for the top of `runner/`."""
    for folder in [ROOT / "runner", *(path for path in ROOT.glob("runner/**/") if path.name != "__pycache__")]:
        names = {path.stem for path in folder.glob("*.py")}
        if folder == ROOT / "runner":
            names, limit = names - COMMANDS, TOP_MODULES
        else:
            limit = FILES_PER_FOLDER
        if len(names - {"__init__"}) > limit:
            yield f"{folder.relative_to(ROOT)}/: {len(names)} files, over {limit}"


def main() -> int:
    """Print the numbers by folder and what passes a limit."""
    found = sources("runner", "hydra_plugins")
    folders = sorted({".".join(each.name.split(".")[:2]) for each in found if each.name.count(".") > 1})
    rows = {"all": found} | {name: [each for each in found if each.name.startswith(f"{name}.")] for name in folders}
    table = Table(box=None, pad_edge=False)
    for head in ("", *figures(found)):
        table.add_column(head)
    for name, modules in rows.items():
        table.add_row(name, *figures(modules).values())
    console = Console()
    console.print(table)
    wrong = list(faults(found))
    for line in wrong:
        console.print(line, soft_wrap=True, markup=False)
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
