"""What all commands share: `--help`, variables from `.env`, and how an error becomes a sentence and an exit code."""

import argparse
import math
import select
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec

from runner.errors import RequestError, StopAsked
from runner.record import run_folders

Keys = TypeVar("Keys")

COMMANDS = {
    "runner": "fine-tune a model: check the request, plan, run",
    "runner.evaluate": "ask models the same prompts, grade their answers",
    "runner.pairs": "make preference rows of a model's graded answers",
    "runner.chat": "talk to a run's model and the one it was made from",
    "runner.compare": "compare runs or a sweep, with confidence intervals",
    "runner.promote": "give a run's model a name, if it is better",
    "runner.watch": "follow hosted jobs to their end",
    "runner.jobs": "list the hosted jobs; cancel, pause or resume some",
    "runner.export": "write a run's model in another form, with a proof",
    "runner.serve": "serve a run's model, OpenAI-compatible",
    "runner.clean": "remove what runs left at the hosted service",
    "runner.schema": "print the JSON schema by which editors check YAML",
    "runner.mcp": "serve plan, run, status and compare to an agent",
}
"""Every command, and in a line what it does."""


class _Help(argparse.HelpFormatter):
    """Fills paragraphs to the terminal's width; indented ones, which are tables and examples, stay as they are."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        # argparse either fills all paragraphs or none.
        parts = text.strip("\n").split("\n\n")
        fill = super()._fill_text
        return "\n\n".join(part if part.startswith("  ") else fill(part, width, indent) for part in parts)


class _Parser(argparse.ArgumentParser):
    # argparse's own refuses KEY=VALUE that follows an option where others came before it.
    def parse_args(self, args: Sequence[str]) -> argparse.Namespace:  # type: ignore[override]
        """Return what the arguments say, options and positionals in any order."""
        return self.parse_intermixed_args(args)

    def error(self, message: str) -> NoReturn:
        """Raise a mistake as any other, so that it is printed as a sentence, with exit code 2."""
        raise RequestError(f"{self.prog}: {message}; {self.prog} --help shows what is allowed.")


def parser(name: str, description: str) -> argparse.ArgumentParser:
    """Return a command's parser of options: with `--runs-folder`, and `--help` that names the other commands.

    It raises `RequestError` for what is not allowed.
    """
    made = _Parser(prog=f"python -m {name}", description=description, epilog=others(name), formatter_class=_Help)
    made.add_argument(
        "--runs-folder",
        type=Path,
        default=run_folders.default(),
        metavar="FOLDER",
        help="where the runs are; RUNNER_RUNS_FOLDER or %(default)s",
    )
    return made


def margin(text: str) -> float:
    """Return the value of `--margin`. Raises `ArgumentTypeError` for one that is none."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value < math.inf:
        raise argparse.ArgumentTypeError(f"got {text}; allowed: a number above 0, in the metric's own unit")
    return value


def keys(typed: Sequence[str], form: type[Keys]) -> Keys:
    """Return what KEY=VALUE on a command line say, by the fields of a dataclass. Raises `RequestError` otherwise."""
    allowed = [each.name for each in fields(form)]  # type: ignore[arg-type]
    values: dict[str, str | None] = {}
    for each in typed:
        key, equals, value = each.partition("=")
        if not equals or key not in allowed:
            raise RequestError(f"{each}: no such key; allowed: {', '.join(f'{name}=…' for name in allowed)}.")
        values[key] = None if value == "null" else value
    try:
        return msgspec.convert(values, form, strict=False)
    except msgspec.ValidationError as error:
        reason, _, place = str(error).partition(" - at `$.")
        raise RequestError(
            f"{place.rstrip('`')}: {reason[0].lower()}{reason[1:]}, got {values[place.rstrip('`')]}."
        ) from None


def agreed(question: str) -> bool:
    """Ask, and say whether the answer was yes; where nobody can answer it was not."""
    try:
        return input(question).strip().lower() in ("y", "yes")
    except EOFError:
        return False


def others(name: str) -> str:
    """Return a paragraph that names the other commands, one in a line."""
    width = max(map(len, COMMANDS))
    lines = [f"  python -m {each:{width}}  {purpose}" for each, purpose in COMMANDS.items() if each != name]
    return "\n\n".join(["Other commands (each has --help):", "\n".join(lines)])


def run_and_keys(name: str, description: str, arguments: Sequence[str], form: type[Keys]) -> tuple[Path, Keys]:
    """Return the run's folder and the KEY=VALUE of a command that is typed as `RUN KEY=VALUE …`.

    Raises `RequestError` where one is missing or not allowed.
    """
    made = parser(name, description)
    made.add_argument("run", nargs="?", metavar="RUN")
    made.add_argument("keys", nargs="*", metavar="KEY=VALUE")
    given = made.parse_args(arguments)
    # Not argparse's own: it would name what is missing before an option that it does not know.
    if given.run is None:
        raise RequestError(f"python -m {name}: RUN is missing; name a run, as python -m {name} --help says.")
    return run_folders.find(given.run, given.runs_folder), keys(given.keys, form)


def main(work: Callable[[list[str]], int | None]) -> NoReturn:
    """Do a command's work with its arguments and leave with its exit code."""

    def prepared() -> int | None:
        read_dotenv()
        return work(sys.argv[1:])

    sys.exit(guarded(prepared))


def guarded(work: Callable[[], int | None]) -> int:
    """Do some work and return the exit code: its own, 0, an error's, or 130 after Ctrl-C.

    A user's mistake and what the system refuses are printed as a sentence; a bug leaves with its traceback.
    """
    try:
        code = work() or 0
    except SystemExit as end:  # argparse: after --help, or an option that does not exist
        # sys.exit("text") is how libraries end with a message; Python prints it.
        if isinstance(end.code, str):
            raise
        code = end.code or 0
    except KeyboardInterrupt:
        code = StopAsked.exit_code
    except Exception as error:
        code = 0 if isinstance(error, BrokenPipeError) and _reader_is_gone() else _complained(error)
    # Output is written at the end, and a full disk is seen only then.
    return max(code, _written())


def _complained(error: Exception) -> int:
    """Print an error as a sentence and return its exit code; raise it again where it is a bug."""
    from runner import distributed
    from runner.request import hydra_errors
    from runner.terminal import console

    sentence = hydra_errors.sentence(error)
    if sentence is None:
        raise error
    # Under torchrun every rank meets the same mistake; it is printed once.
    if distributed.speaks(str(sentence)):
        console.complain(str(sentence))
    return sentence.exit_code


def _reader_is_gone() -> bool:
    """Say whether standard output is a pipe that nobody reads any more."""
    pipe = select.poll()
    # So a broken pipe of standard output is distinguished from a socket's, which would be a bug.
    pipe.register(sys.stdout.fileno(), 0)  # an error is reported whether asked for or not
    return bool(pipe.poll(0))


def _written() -> int:
    """Write out what was printed and return 0; 1 where that is not possible, but not for a reader that has gone."""
    if not sys.stdout:  # the process was started with it closed
        return 0
    try:
        sys.stdout.flush()
    except BrokenPipeError:  # `… | head -1` has all it wants
        _silence_output()
    except OSError as error:
        _silence_output()
        sys.stderr.write(f"standard output: {error.strerror}; what was printed is lost.\n")
        return 1
    return 0


def _silence_output() -> None:
    from runner.terminal.console import silence

    silence(sys.stdout)


def read_dotenv() -> None:
    """Take variables from the nearest `.env` at or above the current folder; those already set stay.

    Raises `RequestError` where it cannot be read.
    """
    here = Path.cwd()
    # The nearest one only, as python-dotenv and the usual tools have it.
    found = next((path for path in (folder / ".env" for folder in (here, *here.parents)) if path.is_file()), None)
    if found is not None:
        from dotenv import load_dotenv

        try:
            load_dotenv(found)
        except UnicodeDecodeError as error:
            raise RequestError(f"{found}: is not UTF-8 (byte {error.start + 1}); save it as UTF-8.") from error
