"""What can be said of a grader's source without running it."""

import ast
import sys
from collections.abc import Iterator
from importlib.util import find_spec

LARGEST = 256_000
"""Bytes of source that the service takes."""

# https://platform.openai.com/docs/guides/graders, image 2025-05-08, by the names they are imported by.
SERVICE_PACKAGES = {
    *("numpy", "scipy", "sympy", "pandas", "rapidfuzz", "sklearn", "rouge_score", "deepdiff", "jsonschema", "pydantic"),
    *("yaml", "nltk", "sqlparse", "rdkit", "skbio", "ast_grep_py"),
}


def problems(source: str) -> Iterator[str]:
    """Yield a sentence for each thing that keeps a source from grading."""
    if len(source.encode("utf-8", "replace")) > LARGEST:
        yield f"source: more than {LARGEST:,} bytes, which is the most that the service takes."
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        yield f"source, line {getattr(error, 'lineno', None) or 1}: {getattr(error, 'msg', error)}."
        return
    bound = {name for statement in tree.body for name in _bound(statement)}
    if "grade" not in bound:
        yield "source: defines no function grade; fix: def grade(sample, item): return a number."
    for statement in tree.body:
        if isinstance(statement, ast.FunctionDef) and statement.name == "grade":
            arguments = statement.args
            if len(arguments.posonlyargs + arguments.args) != 2 and arguments.vararg is None:
                yield f"source, line {statement.lineno}: grade must take two arguments, sample and item."
        for name, line in _imports(statement) if isinstance(statement, ast.Import | ast.ImportFrom) else ():
            # Only those of the module itself: an import within a function may be meant for the service alone.
            if name not in sys.stdlib_module_names and find_spec(name) is None:
                yield f"source, line {line}: imports {name}, which is not installed here; fix: pip install it."


def warnings(source: str) -> Iterator[str]:
    """Yield a sentence for each import that the service does not have."""
    for name, line in dict(reversed([each for node in ast.walk(ast.parse(source)) for each in _imports(node)])).items():
        if name not in sys.stdlib_module_names and name not in SERVICE_PACKAGES:
            yield f"source, line {line}: imports {name}, which a hosted grader (image 2025-05-08) cannot."


def _imports(node: ast.AST) -> Iterator[tuple[str, int]]:
    if isinstance(node, ast.Import):
        yield from ((alias.name.partition(".")[0], node.lineno) for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
        yield node.module.partition(".")[0], node.lineno


def _bound(statement: ast.stmt) -> Iterator[str]:
    """Yield names that a statement may bind, also within an if or a try."""
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.alias):
            yield node.asname or node.name
