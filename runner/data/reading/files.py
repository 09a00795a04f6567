"""From what a user types under `dataset.train` to files: paths, globs, lists, `embedded:NAME`, and names of sources."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

from runner.data import sources
from runner.data.quoting import shown
from runner.errors import DataError

EMBEDDED = "embedded:"
"""Prefix of the files that come with the package."""
EMBEDDED_FOLDER = Path(__file__).parents[1] / "embedded"


@dataclass(frozen=True)
class DataFile:
    """A file as the user calls it (for messages) and where it is; what is not `own` was fetched from elsewhere."""

    name: str
    path: Path
    own: bool = True

    @property
    def folder(self) -> Path | None:
        """The folder to which paths in it are relative; None for a file from elsewhere, where they mean nothing."""
        return self.path.parent if self.own else None


def locate(where: str | Sequence[str]) -> tuple[DataFile, ...]:
    """Return the files meant by a path, a glob or a list of them, in the order given; globs are sorted.

    Paths are relative to the current folder. Raises `DataError` for what does not exist, is no file, or is in a
    folder that may not be read.
    """
    names = [where] if isinstance(where, str) else list(where)
    if not names:
        raise DataError("dataset.train: got an empty list; give it a file, a glob or a list of them.")
    return tuple(file for name in names for file in _looked_up(name))


def _looked_up(name: str) -> list[DataFile]:
    """Return the files that a name means. Raises `DataError` with what the system says against it."""
    try:
        return list(_matches(name))
    except OSError as error:
        raise DataError(
            f"{shown(name, 200)}: {error.strerror}; a file that can be read is needed; check the path."
        ) from None
    except RuntimeError:  # pathlib's, for `~user`
        user = name.partition("/")[0]
        raise DataError(
            f"{shown(name, 200)}: there is no user {user.removeprefix('~')} here; write the path out."
        ) from None
    except ValueError as error:  # pathlib's, for a pattern such as `**.jsonl` or a path with a NUL
        raise DataError(f"{shown(name, 200)}: is no path or pattern ({error}); check it.") from None


def pinned(where: str | Sequence[str]) -> str | list[str]:
    """Return names with what those of sources mean at present, such as a commit in place of a branch.

    Raises `DataError` if a source does not know one.
    """
    if not isinstance(where, str):
        return [name for each in where for name in [pinned(each)] if isinstance(name, str)]
    source = sources.of(where)
    return source.pinned(where) if source and not Path(where).is_file() else where


def _matches(name: str) -> Iterator[DataFile]:
    source = sources.of(name)
    # A file here may be called like an address, and is meant then.
    if source is not None and not Path(name).is_file():
        yield from (DataFile(called, path, own=False) for called, path in source.files(name))
        return
    if "://" in name:
        known = ", ".join(f"{scheme}:" for scheme in sources.by_scheme())
        raise DataError(f"{shown(name, 200)}: is at no address that is known; allowed: {known}, or files here.")
    embedded = name.startswith(EMBEDDED)
    path = EMBEDDED_FOLDER / name.removeprefix(EMBEDDED) if embedded else Path(name).expanduser()
    # First, as a file may have a name with brackets or stars in it.
    if path.is_file():
        yield DataFile(name, path)
    # Sorted, since the order of a folder differs between machines and is part of what the rows are.
    elif found := sorted(_glob(path)):
        yield from (DataFile(_named(each) if embedded else str(each), each) for each in found)
    else:
        raise DataError(f"{name}: {_absence(path, _named if embedded else str)}.")


def _named(path: Path) -> str:
    """Return what the user calls an embedded file."""
    return f"{EMBEDDED}{path.relative_to(EMBEDDED_FOLDER)}"


def _glob(path: Path) -> Iterator[Path]:
    """Yield the files that match a pattern; nothing if the path is not a pattern."""
    if any(sign in str(path) for sign in "*?["):
        root = Path(path.anchor)
        # From the root: pathlib's glob takes no absolute pattern.
        yield from (each for each in root.glob(str(path.relative_to(root))) if each.is_file())


def _absence(path: Path, called: Callable[[Path], str]) -> str:
    """Say why a path gives no file, and what is there instead, as the user would call it."""
    if path.is_dir():
        return f"is a folder; name its files, for example {path / '*.jsonl'}"
    # Rows are read for the check, for the fingerprint and for training.
    if path.is_fifo():
        return "is a pipe, which can be read only once; rows are read several times; write them to a file first"
    if path.exists():
        return "is no file but a device or a socket; write the rows to a file first"
    if path.is_symlink():
        return f"is a link to {path.readlink()}, which does not exist; fix the link, or name the file itself"
    # The nearest folder that exists: the first part of the path that is wrong is below it.
    folder = next(each for each in (path.parent, *path.parents) if each.is_dir())
    present = sorted(each.name for each in folder.iterdir() if not each.name.startswith("."))
    close = get_close_matches(path.name, present, 1)
    if folder != path.parent:
        return f"no such file; its folder {path.parent} does not exist"
    if close:
        return f"no such file; did you mean {called(folder / close[0])}"
    return f"no such file; {folder} holds {_some(present) or 'nothing'}"


def _some(names: list[str], limit: int = 8) -> str:
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more
