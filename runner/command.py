"""What all commands share: variables from `.env`, and how an error becomes an exit code."""

import sys
from collections.abc import Callable
from pathlib import Path

from runner.errors import RequestError, RunnerError, StopAsked


def run(work: Callable[[list[str]], int | None]) -> None:
    """Do a command's work with its arguments and leave: with its code or 0, an error's, or 130 after Ctrl-C."""
    try:
        read_dotenv()
        sys.exit(work(sys.argv[1:]) or 0)
    except RunnerError as error:
        from runner import console

        console.complain(str(error))
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(StopAsked.exit_code)


def guarded(work: Callable[[], object]) -> int:
    """Do some work and return the exit code; a user's mistake is told in a sentence, a bug with its traceback."""
    try:
        work()
    except KeyboardInterrupt:
        return StopAsked.exit_code
    except Exception as error:
        from runner import composition, console, ranks

        told = composition.sentence(error)
        if told is None:
            raise
        if ranks.speaks(str(told)):
            console.complain(str(told))
        return told.exit_code
    return 0


def read_dotenv() -> None:
    """Take variables from the nearest `.env` at or above the current folder; those already set stay.

    Raises `RequestError` where it cannot be read.
    """
    here = Path.cwd()
    found = next((path for path in (folder / ".env" for folder in (here, *here.parents)) if path.is_file()), None)
    if found is not None:
        from dotenv import load_dotenv

        try:
            load_dotenv(found)
        except UnicodeDecodeError as error:
            raise RequestError(f"{found}: is not UTF-8 (byte {error.start + 1}); save it as UTF-8.") from error
